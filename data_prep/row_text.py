"""What a row says, as text: all of it, what is asked, what is answered."""

import json
from typing import Any

from data_prep.rows import Completion, Message, Row, Text


def whole_text(row: Row) -> str:
    """All of a row: its turns with their roles, its calls and tools. Equal texts, equal rows."""
    if isinstance(row, Completion):
        return f"{len(row.prompt)}:{row.prompt}{row.completion}"
    if isinstance(row, Text):
        return row.text
    # Lengths stand before contents, so that no content can pass for another turn.
    parts = [f"{m.role}{m.train:d}{len(m.content)}:{m.content}" for m in row.messages]
    extra = [row.tools, *(_calls(message) for message in row.messages)]
    if any(extra):
        parts.append(json.dumps(extra, ensure_ascii=False, sort_keys=True, default=str))
    return "".join(parts)


def prompt_text(row: Row) -> str:
    """What everybody but the assistant says."""
    if isinstance(row, Completion):
        return row.prompt
    if isinstance(row, Text):
        return ""
    return "\n".join(m.content for m in row.messages if m.role != "assistant")


def response_text(row: Row) -> str:
    """What the assistant says, its calls included."""
    if isinstance(row, Completion):
        return row.completion
    if isinstance(row, Text):
        return row.text
    return "\n".join(_said(m) for m in row.messages if m.role == "assistant")


def text_of(row: Row, on: str) -> str:
    """The ``prompt``, the ``response``, or ``both``."""
    texts = {"prompt": prompt_text, "response": response_text}
    return texts[on](row) if on in texts else f"{prompt_text(row)}\n{response_text(row)}"


def _calls(message: Message) -> list[Any]:
    """What a message calls; the calls' ids say nothing."""
    return [call["function"] for call in message.tool_calls]


def _said(message: Message) -> str:
    calls = [json.dumps(call, ensure_ascii=False, default=str) for call in _calls(message)]
    return "\n".join([message.content, *calls])
