"""Raw records -> rows: alpaca, sharegpt, openai messages, completion, guanaco."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from data_prep.errors import RowError
from data_prep.rows import Completion, Conversation, Message, Row

FormatName = Literal["auto", "alpaca", "sharegpt", "openai", "completion", "guanaco"]


def alpaca(record: Mapping[str, Any]) -> Conversation:
    """``instruction``, ``input`` (may be empty), ``output``; optional ``system``, ``history``."""
    turns = _system(record)
    history = record.get("history") or []
    if not isinstance(history, list):
        raise RowError("wrong field", "'history' wants a list of [question, answer] pairs")
    for pair in history:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise RowError("wrong field", "'history' wants a list of [question, answer] pairs")
        question, answer = ({"history": text} for text in pair)
        turns.append(Message("user", _text(question, "history")))
        turns.append(Message("assistant", _text(answer, "history")))
    context = _optional_text(record, "input")
    turns.append(Message("user", f"{_text(record, 'instruction')}\n{context}".strip()))
    turns.append(Message("assistant", _text(record, "output")))
    return Conversation(tuple(turns))


_SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "function_call": "function_call",
    "observation": "tool",
    "tool": "tool",
}


def sharegpt(record: Mapping[str, Any]) -> Conversation:
    """``conversations`` of ``from``/``value``; optional ``system`` and ``tools``."""
    _refuse_preference(record)
    turns = _system(record)
    for turn in _objects(record, "conversations"):
        role = _SHAREGPT_ROLES.get(str(turn.get("from")))
        if role is None:
            raise RowError(
                "unknown role", f"{turn.get('from')!r}; allowed: {', '.join(_SHAREGPT_ROLES)}"
            )
        if role == "function_call":
            call = _json_or(_text(turn, "value"), "a function_call wants JSON")
            turns.append(Message("assistant", "", (_tool_call(call),)))
        else:
            turns.append(Message(role, _text(turn, "value")))
    return Conversation(tuple(turns), _tools(record))


def openai(record: Mapping[str, Any]) -> Conversation:
    """``messages`` of ``role``/``content``, with ``tool_calls`` and ``tools`` where given."""
    _refuse_preference(record)
    turns = []
    for message in _objects(record, "messages"):
        if message.get("weight") == 0:
            raise RowError("wrong field", "'weight' 0: every assistant turn is trained on")
        calls = message.get("tool_calls") or []
        if not isinstance(calls, list):
            raise RowError("wrong field", "'tool_calls' wants a list of calls")
        content = "" if message.get("content") is None and calls else _text(message, "content")
        turns.append(Message(_text(message, "role"), content, tuple(map(_tool_call, calls))))
    return Conversation(tuple(turns), _tools(record))


def completion(record: Mapping[str, Any]) -> Completion:
    """``prompt`` and ``completion``, rendered without a chat template."""
    row = Completion(_text(record, "prompt"), _text(record, "completion"))
    if not row.completion.strip():
        raise RowError("empty answer", "'completion' has no text")
    return row


_GUANACO_TURN = re.compile(r"###\s*(Human|Assistant)\s*:")


def guanaco(record: Mapping[str, Any]) -> Conversation:
    """``text`` (or ``input`` + ``output``) with ``### Human:`` and ``### Assistant:`` turns."""
    if "output" in record:
        answer = _text(record, "output")
        if _GUANACO_TURN.search(answer.lstrip(), 1):
            raise RowError("special token in the text", "'output' would become several turns")
        text = f"{_text(record, 'input')} {answer}"
    else:
        text = _text(record, "text")
    pieces = _GUANACO_TURN.split(text)
    if pieces[0].strip():
        raise RowError("wrong field", "text before the first '### Human:' or '### Assistant:'")
    roles = {"Human": "user", "Assistant": "assistant"}
    pairs = zip(pieces[1::2], pieces[2::2], strict=True)
    return Conversation(tuple(Message(roles[who], said.strip()) for who, said in pairs))


CONVERTERS: dict[str, Callable[[Mapping[str, Any]], Row]] = {
    "alpaca": alpaca,
    "sharegpt": sharegpt,
    "openai": openai,
    "completion": completion,
    "guanaco": guanaco,
}


def detect(record: Mapping[str, Any]) -> str:
    """Name the format of a record from its fields.

    Raises:
        RowError: no format has these fields.
    """
    fields = set(record)
    if "messages" in fields:
        return "openai"
    if "conversations" in fields:
        return "sharegpt"
    if {"instruction", "output"} <= fields:
        return "alpaca"
    if {"prompt", "completion"} <= fields:
        return "completion"
    guanaco_text = record.get("input", record.get("text"))
    if isinstance(guanaco_text, str) and _GUANACO_TURN.match(guanaco_text.lstrip()):
        return "guanaco"
    raise RowError(
        "unknown format",
        f"fields {', '.join(sorted(map(str, fields))) or 'none'}; formats: {', '.join(CONVERTERS)}",
    )


def _text(record: Mapping[str, Any], field: str) -> str:
    value = record.get(field)
    if value is None and field in record:
        raise RowError("missing field", f"{field!r} is null")
    if value is None:
        fields = ", ".join(map(str, record)) or "none"
        raise RowError("missing field", f"{field!r}; the row has: {fields}")
    if not isinstance(value, str):
        raise RowError("wrong field", f"{field!r} wants text, found {type(value).__name__}")
    return value


def _optional_text(record: Mapping[str, Any], field: str) -> str:
    return "" if record.get(field) is None else _text(record, field)


def _system(record: Mapping[str, Any]) -> list[Message]:
    text = _optional_text(record, "system")
    return [Message("system", text)] if text else []


def _refuse_preference(record: Mapping[str, Any]) -> None:
    """A row that says which answer is worse must not be taught as if every answer were right."""
    if {"chosen", "rejected"} <= set(record) or isinstance(record.get("label"), bool):
        raise RowError(
            "preference row",
            "chosen/rejected or label: such rows are for preference training, not for sft",
        )


def _objects(record: Mapping[str, Any], field: str) -> list[Mapping[str, Any]]:
    value = record.get(field)
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise RowError("wrong field", f"{field!r} wants a list of objects")
    return value


def _json_or(text: str, problem: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise RowError("wrong field", problem) from None


def _tool_call(call: Any) -> Mapping[str, Any]:
    """One call as the templates want it: the arguments are an object, also if given as JSON text.

    The server does the same to the calls it is sent, so both render alike.
    """
    function = _function(call, "a tool call")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        arguments = _json_or(arguments, "a tool call's 'arguments' are text but not JSON")
    if not isinstance(arguments, dict):
        raise RowError("wrong field", "a tool call's 'arguments' want an object")
    extra = {"id": call["id"]} if call.get("id") else {}
    return {
        **extra,
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }


def _function(entry: Any, what: str) -> Mapping[str, Any]:
    function = entry.get("function", entry) if isinstance(entry, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str) or not name:
        raise RowError("wrong field", f"{what} wants an object with the function's 'name'")
    return function


def _tools(record: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    tools = record.get("tools") or []
    if isinstance(tools, str):
        tools = _json_or(tools, "'tools' is text but not JSON") or []
    if not isinstance(tools, list):
        raise RowError("wrong field", "'tools' wants a list of JSON schemas")
    for tool in tools:
        _function(tool, "a tool")
    return tuple(tools)
