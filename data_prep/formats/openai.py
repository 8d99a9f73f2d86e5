"""OpenAI messages: a list of roles and contents, with tools and calls to them."""

from collections.abc import Mapping
from typing import Any

from data_prep.errors import RowError
from data_prep.formats.fields import as_json, kind, objects, optional_text, system, text
from data_prep.formats.refusals import a_conversation
from data_prep.formats.tool_calls import tool_call, tools, with_call_ids
from data_prep.rows import Conversation, Message, Row


def openai(record: Mapping[str, Any]) -> Conversation:
    """``messages`` of ``role``/``content``, with ``tool_calls`` and ``tools`` where given.

    A message may carry ``weight`` (0 or 1) or ``train`` (true or false): whether it is supervised.
    The older spellings ``functions`` and ``function_call`` are understood.
    """
    turns = [*system(record), *map(read_message, objects(record, "messages"))]
    return Conversation(with_call_ids(turns), tools(record))


_ROLES = {"function": "tool", "developer": "system"}
"""Older and newer names of roles; a ``developer`` message is what a system message was."""


def read_message(message: Mapping[str, Any]) -> Message:
    """One message; its calls have no ids yet where it gave none."""
    for field in _NOT_TRAINED:
        if message.get(field):
            raise RowError(
                "wrong field",
                f"{field!r} would be lost: write it into 'content', or take it out",
            )
    if "role" not in message and "from" in message:
        raise RowError(
            "wrong field", "turns of 'from' and 'value' are sharegpt: name the list 'conversations'"
        )
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise RowError("wrong field", "'tool_calls' wants a list of calls")
    if message.get("function_call"):
        calls = [*calls, message["function_call"]]
    content = "" if message.get("content") is None and calls else _content(message)
    role = text(message, "role")
    return Message(
        _ROLES.get(role, role),
        content,
        tuple(map(tool_call, calls)),
        tool_call_id=optional_text(message, "tool_call_id"),
        train=trained(message),
    )


_NOT_TRAINED = ("reasoning_content", "reasoning", "thinking", "refusal", "audio", "images")
"""Parts of a message that chat templates render differently, or not at all."""


def _content(message: Mapping[str, Any]) -> str:
    """The content as text; of several parts, each on lines of its own, as vLLM's server joins."""
    content = message.get("content")
    if not isinstance(content, list):
        return text(message, "content")
    parts = []
    for part in content:
        if not isinstance(part, Mapping):
            raise RowError("wrong field", f"'content' wants text parts, found {kind(part)}")
        if part.get("type") != "text":
            raise RowError(
                "wrong field", f"'content' has a part of type {part.get('type')!r}; allowed: text"
            )
        parts.append(text(part, "text"))
    return "\n".join(parts)


def trained(message: Mapping[str, Any]) -> bool:
    """Whether a message asks to be supervised."""
    train, weight = message.get("train"), message.get("weight")
    if train not in (None, True, False):
        raise RowError("wrong field", f"'train' wants true or false, found {train!r}")
    if weight not in (None, 0, 1):
        raise RowError("wrong field", f"'weight' wants 0 or 1, found {weight!r}")
    return train in (None, True) and weight in (None, 1)


def write_openai(row: Row) -> dict[str, Any]:
    """``messages``, and ``tools`` where there are any; arguments as JSON text, as the API has it.

    A message that is not to be trained carries ``train: false``.
    """
    conversation = a_conversation(row, "openai")
    written: dict[str, Any] = {"messages": [write_message(m) for m in conversation.messages]}
    if conversation.tools:
        written["tools"] = [dict(tool) for tool in conversation.tools]
    return written


def write_message(message: Message) -> dict[str, Any]:
    """One message as the API takes it."""
    written: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        written["tool_calls"] = [_written_call(call) for call in message.tool_calls]
    if message.tool_call_id:
        written["tool_call_id"] = message.tool_call_id
    return written if message.train else written | {"train": False}


def _written_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {**call, "function": {**function, "arguments": as_json(function["arguments"])}}
