"""Raw records -> rows: alpaca, sharegpt, openai messages, completion, guanaco."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from data_prep import strict_json
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
    instruction, context = _text(record, "instruction"), _optional_text(record, "input")
    asked = [text for text in (instruction, context) if text.strip()]
    turns.append(Message("user", "\n".join(asked)))
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
    """``conversations`` of ``from``/``value``; optional ``system`` and ``tools``.

    A turn may carry ``weight`` (0 or 1) or ``train`` (true or false): whether it is supervised.
    """
    turns = _system(record)
    for turn in _objects(record, "conversations"):
        role = _SHAREGPT_ROLES.get(str(turn.get("from")))
        if role is None:
            raise RowError(
                "unknown role", f"{turn.get('from')!r}; allowed: {', '.join(_SHAREGPT_ROLES)}"
            )
        if role == "function_call":
            call = _json_or(_text(turn, "value"), "a function_call wants JSON")
            turns.append(Message("assistant", "", (_tool_call(call),), train=_train(turn)))
        else:
            turns.append(Message(role, _text(turn, "value"), train=_train(turn)))
    return Conversation(_with_call_ids(turns), _tools(record))


def openai(record: Mapping[str, Any]) -> Conversation:
    """``messages`` of ``role``/``content``, with ``tool_calls`` and ``tools`` where given.

    A message may carry ``weight`` (0 or 1) or ``train`` (true or false): whether it is supervised.
    The older spellings ``functions`` and ``function_call`` are understood.
    """
    turns = _system(record)
    for message in _objects(record, "messages"):
        for field in _NOT_TRAINED:
            if message.get(field):
                raise RowError(
                    "wrong field",
                    f"{field!r} would be lost: write it into 'content', or take it out",
                )
        calls = message.get("tool_calls") or []
        if not isinstance(calls, list):
            raise RowError("wrong field", "'tool_calls' wants a list of calls")
        if message.get("function_call"):
            calls = [*calls, message["function_call"]]
        content = "" if message.get("content") is None and calls else _text(message, "content")
        role = _text(message, "role")
        turns.append(
            Message(
                "tool" if role == "function" else role,
                content,
                tuple(map(_tool_call, calls)),
                tool_call_id=_optional_text(message, "tool_call_id"),
                train=_train(message),
            )
        )
    return Conversation(_with_call_ids(turns), _tools(record))


_NOT_TRAINED = ("reasoning_content", "reasoning", "thinking", "refusal", "audio", "images")
"""Parts of a message that chat templates render differently, or not at all."""


def _train(message: Mapping[str, Any]) -> bool:
    """Whether a message asks to be supervised."""
    train, weight = message.get("train"), message.get("weight")
    if train not in (None, True, False):
        raise RowError("wrong field", f"'train' wants true or false, found {train!r}")
    if weight not in (None, 0, 1):
        raise RowError("wrong field", f"'weight' wants 0 or 1, found {weight!r}")
    return train is not False and weight != 0


def _with_call_ids(turns: Sequence[Message]) -> tuple[Message, ...]:
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
        asked = _text(record, "input")
        turn = answer.lstrip().startswith("###") or asked.rstrip().endswith("### Assistant:")
        if not turn:
            raise RowError("wrong field", "'input' must end in '### Assistant:' before an 'output'")
        text = f"{asked.rstrip()} {answer}"
    else:
        text = _text(record, "text")
    pieces = _GUANACO_TURN.split(text)
    if pieces[0].strip():
        raise RowError("wrong field", "text before the first '### Human:' or '### Assistant:'")
    roles = {"Human": "user", "Assistant": "assistant"}
    pairs = zip(pieces[1::2], pieces[2::2], strict=True)
    # One space stands after the marker, and white space before the next; the rest is text.
    return Conversation(
        tuple(Message(roles[who], said.removeprefix(" ").rstrip()) for who, said in pairs)
    )


CONVERTERS: dict[str, Callable[[Mapping[str, Any]], Row]] = {
    "alpaca": alpaca,
    "sharegpt": sharegpt,
    "openai": openai,
    "completion": completion,
    "guanaco": guanaco,
}


def convert(record: Mapping[str, Any], format_name: str) -> Row:
    """Make a row of a record.

    Raises:
        RowError: the record is not of this format, or says itself that its answer is a bad one.
    """
    _refuse_preference(record)
    return CONVERTERS[format_name](record)


_FIELDS: dict[str, tuple[str, ...]] = {
    "alpaca": ("instruction", "input", "output", "system", "history"),
    "sharegpt": ("conversations", "system", "tools", "functions"),
    "openai": ("messages", "system", "tools", "functions"),
    "completion": ("prompt", "completion"),
    "guanaco": ("text", "input", "output"),
}
_TURN_FIELDS: dict[str, tuple[str, ...]] = {
    "conversations": ("from", "value", "train", "weight"),
    "messages": (
        *("role", "content", "train", "weight"),
        *("tool_calls", "function_call", "tool_call_id"),
    ),
}


def unused_fields(record: Mapping[str, Any], format_name: str) -> set[str]:
    """Names of fields that hold something and that a format makes nothing of."""
    found = {field for field in record if field not in _FIELDS[format_name]}
    unused = {str(field) for field in found if record[field] not in (None, "")}
    for turns, known in _TURN_FIELDS.items():
        if turns in _FIELDS[format_name]:
            for turn in record[turns]:
                extra = {field for field in turn if field not in known}
                unused |= {f"{turns}[].{f}" for f in extra if turn[f] not in (None, "")}
    return unused


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
    label = record.get("label")
    if {"chosen", "rejected"} <= set(record) or str(label).lower() in _VERDICTS:
        raise RowError(
            "preference row",
            "chosen/rejected or label: such rows are for preference training, not for sft",
        )


_VERDICTS = ("true", "false", "0", "1")
"""Labels that say whether an answer is good; another ``label`` is somebody's category."""


def _objects(record: Mapping[str, Any], field: str) -> list[Mapping[str, Any]]:
    value = record.get(field)
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise RowError("wrong field", f"{field!r} wants a list of objects")
    return value


def _json_or(text: str, problem: str) -> Any:
    try:
        return strict_json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RowError("wrong field", f"{problem}: {error}") from None


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
    extra = {"id": str(call["id"])} if call.get("id") else {}
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
    tools = record.get("tools") or record.get("functions") or []
    if isinstance(tools, str):
        tools = _json_or(tools, "'tools' is text but not JSON") or []
    if not isinstance(tools, list):
        raise RowError("wrong field", "'tools' wants a list of JSON schemas")
    return tuple(map(_tool, tools))


def _tool(entry: Any) -> Mapping[str, Any]:
    """A tool as the server hands it to the template: every field there, null where not given."""
    function = _function(entry, "a tool")
    fields = {name: function.get(name) for name in ("name", "description", "parameters")}
    strict = {"strict": function["strict"]} if function.get("strict") is not None else {}
    return {"type": "function", "function": fields | strict}
