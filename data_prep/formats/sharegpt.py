"""ShareGPT: a list of who speaks and what they say, with tools and calls to them."""

from collections.abc import Mapping
from typing import Any

from data_prep.errors import RowError
from data_prep.formats.fields import as_json, holds, json_or, objects, system, text
from data_prep.formats.openai import read_message, trained
from data_prep.formats.refusals import a_conversation, refused
from data_prep.formats.tool_calls import tool_call, tools, with_call_ids
from data_prep.rows import Conversation, Message, Row

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "function_call": "function_call",
    "observation": "tool",
    "tool": "tool",
    "tool_call": "function_call",
    "tool_response": "tool",
    "function_response": "tool",
    "developer": "system",
    "prompter": "user",
    "chatgpt": "assistant",
    "bot": "assistant",
    "function": "tool",
}


def sharegpt(record: Mapping[str, Any]) -> Conversation:
    """``conversations`` of ``from``/``value``; optional ``system`` and ``tools``.

    A turn may carry ``weight`` (0 or 1) or ``train`` (true or false): whether it is supervised.
    Turns spelled ``role``/``content`` are understood.
    """
    turns = [*system(record), *map(read_turn, objects(record, "conversations"))]
    return Conversation(with_call_ids(turns), tools(record))


def read_turn(turn: Mapping[str, Any]) -> Message:
    """One turn; its calls have no ids yet."""
    if turn.get("from") is None and turn.get("role") is not None:
        return _as_a_message(turn)
    if holds(turn, "value", "content") and turn["value"] != turn["content"]:
        raise RowError("wrong field", "a turn's 'value' and 'content' say different things")
    role = _role(turn.get("from"))
    if role == "function_call":
        return _call(turn, text(turn, "value"))
    return Message(role, text(turn, "value"), train=trained(turn))


def _as_a_message(turn: Mapping[str, Any]) -> Message:
    said = "value" if turn.get("content") is None and "value" in turn else "content"
    role = _role(turn["role"])
    if role == "function_call":
        return _call(turn, text(turn, said))
    return read_message({**turn, "role": role, "content": turn.get(said)})


def _role(name: object) -> str:
    role = _ROLES.get(str(name))
    if role is None:
        raise RowError("unknown role", f"{name!r}; allowed: {', '.join(_ROLES)}")
    return role


def _call(turn: Mapping[str, Any], said: str) -> Message:
    """A turn that is one call, or a list of calls, as JSON text."""
    calls = json_or(said, "a function_call wants JSON")
    calls = calls if isinstance(calls, list) else [calls]
    if not calls:
        raise RowError("wrong field", "a function_call wants a call, found an empty list")
    return Message("assistant", "", tuple(map(tool_call, calls)), train=trained(turn))


_NAMES = {"user": "human", "assistant": "gpt", "system": "system", "tool": "observation"}


def write_sharegpt(row: Row) -> dict[str, Any]:
    """``conversations``, and ``tools`` as JSON text where there are any.

    The ids of calls have no place here; which result is whose follows from their order.
    """
    conversation = a_conversation(row, "sharegpt")
    written: dict[str, Any] = {"conversations": [_written(m) for m in conversation.messages]}
    if conversation.tools:
        written["tools"] = as_json([tool["function"] for tool in conversation.tools])
    return written


def _written(message: Message) -> dict[str, Any]:
    if message.tool_calls:
        if message.content:
            raise refused("sharegpt", "the text that stands beside a call would be lost")
        calls = [call["function"] for call in message.tool_calls]
        value = as_json(calls[0] if len(calls) == 1 else calls)
        turn: dict[str, Any] = {"from": "function_call", "value": value}
    else:
        turn = {"from": _NAMES.get(message.role, message.role), "value": message.content}
    return turn if message.train else turn | {"train": False}
