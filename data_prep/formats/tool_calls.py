"""Tools and the calls to them: as the server hands them to a chat template, whoever wrote them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from data_prep.errors import RowError
from data_prep.formats.fields import json_or, optional_text
from data_prep.rows import Message


def tool_call(call: Any) -> Mapping[str, Any]:
    """One call as the templates want it: the arguments are an object, also if given as JSON text.

    The server does the same to the calls it is sent, so both render alike.
    """
    function = _function(call, "a tool call")
    for field in (*_unknown(call, _OF_CALL), *_unknown(function, _OF_CALL)):
        raise RowError(
            "wrong field", f"a tool call's {field!r} would be lost: it has 'name' and 'arguments'"
        )
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        arguments = json_or(arguments, "a tool call's 'arguments' are text but not JSON")
    if not isinstance(arguments, dict):
        raise RowError("wrong field", "a tool call's 'arguments' want an object")
    _refuse_depth(arguments, "a tool call's 'arguments'")
    extra = {"id": str(call["id"])} if call.get("id") else {}
    return {
        **extra,
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }


EMPTY: tuple[Any, ...] = (None, "", [], {})
"""Values of fields that say nothing."""
_OF_CALL = ("id", "type", "index", "function", "name", "arguments")
_OF_TOOL = ("type", "function", "name", "description", "parameters", "strict")


def _unknown(entry: Mapping[str, Any], known: Sequence[str]) -> list[str]:
    """The fields of a call or a tool that hold something and have no place here."""
    return [str(name) for name, value in entry.items() if name not in known and value not in EMPTY]


_DEEPEST = 100
"""Levels of values in a call or a tool: rows are kept as JSON, which has an end at some depth."""


def _refuse_depth(value: Any, what: str) -> None:
    level = [value]
    for _ in range(_DEEPEST):
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return
    raise RowError("wrong field", f"{what} are nested more than {_DEEPEST} levels deep")


def _inside(value: Any) -> Collection[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list) else ()


def _function(entry: Any, what: str) -> Mapping[str, Any]:
    function = entry.get("function", entry) if isinstance(entry, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str) or not name:
        raise RowError("wrong field", f"{what} wants an object with the function's 'name'")
    return function


def tools(record: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The functions that a record offers, as a list or as JSON text."""
    return tuple(map(_tool, offered(record)[1]))


def offered(record: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """The field in which a record offers functions, and what it holds, unread.

    Of two, it is the first that is not empty, as a list or as JSON text.

    Raises:
        RowError: it is neither.
    """
    for field in ("tools", "functions"):
        found = record.get(field) or []
        if isinstance(found, str):
            found = json_or(found, f"{field!r} is text but not JSON") or []
        if not isinstance(found, list):
            raise RowError("wrong field", f"{field!r} wants a list of JSON schemas")
        if found:
            return field, found
    return "tools", []


def _tool(entry: Any) -> Mapping[str, Any]:
    """A tool as the server hands it to the template: every field there, null where not given.

    What the server would not take is refused: it could be learned, and never be asked for.
    """
    function = _function(entry, "a tool")
    parameters = function.get("parameters")
    if isinstance(parameters, str):  # as tables keep it, whose structs fill each other's keys
        parameters = json_or(parameters, "a tool's 'parameters' are text but not JSON")
    if not isinstance(parameters, Mapping | None):
        raise RowError("wrong field", "a tool's 'parameters' want a JSON schema, an object")
    if parameters and isinstance(parameters.get("properties"), str):
        raise RowError("wrong field", "a tool's 'properties' want an object, found text")
    _refuse_depth(parameters, "a tool's 'parameters'")
    if function.get("input_schema"):
        raise RowError("wrong field", "a tool's 'input_schema' is called 'parameters' here")
    optional_text(function, "description")  # refuses what is no text
    fields = {name: function.get(name) for name in ("name", "description")}
    strict = {"strict": function["strict"]} if function.get("strict") is not None else {}
    return {"type": "function", "function": {**fields, "parameters": parameters, **strict}}


def unused_in_tools(record: Mapping[str, Any]) -> set[str]:
    """Fields of the tools that a record offers which neither the server nor a template is given.

    Raises:
        RowError: as `tools`.
    """
    _, entries = offered(record)
    inner = (_function(entry, "a tool") for entry in entries)
    return {name for entry in (*entries, *inner) for name in _unknown(entry, _OF_TOOL)}


def with_call_ids(turns: Sequence[Message]) -> tuple[Message, ...]:
    """Give every call an id, as the protocol wants it, and every result the id of its call."""
    found: list[Message] = []
    waiting: list[str] = []
    count = 0
    for turn in turns:
        if turn.tool_calls:
            calls = tuple(
                {"id": f"call_{count + i}", **call} for i, call in enumerate(turn.tool_calls)
            )
            count += len(calls)
            waiting = [call["id"] for call in calls]
            found.append(replace(turn, tool_calls=calls))
        elif turn.role == "tool" and not turn.tool_call_id and waiting:
            found.append(replace(turn, tool_call_id=waiting.pop(0)))
        else:
            found.append(turn)
    return tuple(found)


def renumbered(turns: Sequence[Message]) -> tuple[Message, ...]:
    """The same turns with ``call_0``, ``call_1``, ... for ids: which result is whose stays."""
    found: list[Message] = []
    new: dict[str, str] = {}
    count = 0
    for turn in turns:
        calls = []
        for call in turn.tool_calls:
            name = f"call_{count}"
            new[str(call.get("id", ""))] = name
            calls.append({**call, "id": name})
            count += 1
        answered = new.get(turn.tool_call_id, turn.tool_call_id)
        found.append(replace(turn, tool_calls=tuple(calls), tool_call_id=answered))
    return tuple(found)
