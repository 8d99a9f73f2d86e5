"""Guanaco and OpenAssistant text: turns marked ``### Human:`` and ``### Assistant:``."""

import re
from collections.abc import Mapping
from typing import Any

from data_prep.errors import RowError
from data_prep.formats.fields import text
from data_prep.formats.refusals import a_conversation, refused
from data_prep.rows import Conversation, Message, Row

TURN = re.compile(r"###\s*(Human|Assistant)\s*:")


def guanaco(record: Mapping[str, Any]) -> Conversation:
    """``text`` (or ``input`` + ``output``) with ``### Human:`` and ``### Assistant:`` turns."""
    if "output" in record:
        answer = text(record, "output")
        if TURN.search(answer.lstrip(), 1):
            raise RowError("special token in the text", "'output' would become several turns")
        asked = text(record, "input")
        turn = answer.lstrip().startswith("###") or asked.rstrip().endswith("### Assistant:")
        if not turn:
            raise RowError("wrong field", "'input' must end in '### Assistant:' before an 'output'")
        written = f"{asked.rstrip()} {answer}"
    else:
        written = text(record, "text")
    pieces = TURN.split(written)
    if pieces[0].strip():
        raise RowError("wrong field", "text before the first '### Human:' or '### Assistant:'")
    roles = {"Human": "user", "Assistant": "assistant"}
    pairs = zip(pieces[1::2], pieces[2::2], strict=True)
    # One space stands after the marker, and white space before the next; the rest is text.
    return Conversation(
        tuple(Message(roles[who], said.removeprefix(" ").rstrip()) for who, said in pairs)
    )


def begins_with_a_turn(said: object) -> bool:
    """Whether something is text in this format."""
    return isinstance(said, str) and TURN.match(said.lstrip()) is not None


_NAMES = {"user": "Human", "assistant": "Assistant"}


def write_guanaco(row: Row) -> dict[str, Any]:
    """``text``, as the published data set spells it."""
    conversation = a_conversation(row, "guanaco")
    if conversation.tools:
        raise refused("guanaco", "the tools it offers would be lost")
    return {"text": "".join(map(_written, conversation.messages))}


def _written(message: Message) -> str:
    if message.role not in _NAMES:
        raise refused("guanaco", f"its {message.role} message would be lost")
    if message.tool_calls:
        raise refused("guanaco", "its tool calls would be lost")
    if not message.train:
        raise refused("guanaco", "that a turn is not to be trained would be lost")
    if TURN.search(message.content):
        raise refused("guanaco", "a turn's text holds a marker and would become several turns")
    if message.content != message.content.rstrip():
        raise refused("guanaco", "the white space at the end of a turn would be lost")
    return f"### {_NAMES[message.role]}: {message.content}"
