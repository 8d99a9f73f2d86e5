"""A prompt with its completion, plain text or turns; and just text."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from data_prep.errors import RowError
from data_prep.formats.fields import text
from data_prep.formats.human_assistant import begins_with_a_turn
from data_prep.formats.preference import as_turns, read_answer, stated_prompt, with_tools, written
from data_prep.formats.refusals import refused, wrong_kind
from data_prep.formats.tool_calls import tools, with_call_ids
from data_prep.rows import Completion, Conversation, Row, Text, answered


def completion(record: Mapping[str, Any]) -> Completion | Conversation:
    """``prompt`` and ``completion``: text, rendered without a chat template; or lists of messages.

    Of messages, as TRL writes them, the completion alone is learned.
    """
    if isinstance(record.get("prompt"), list) or isinstance(record.get("completion"), list):
        return _of_turns(record)
    row = Completion(text(record, "prompt"), text(record, "completion"))
    if not row.completion.strip():
        raise RowError("empty answer", "'completion' has no text")
    return row


def _of_turns(record: Mapping[str, Any]) -> Conversation:
    prompt = stated_prompt(record)
    if prompt is None:
        raise RowError("missing field", "'prompt': what the completion answers")
    turns = with_call_ids((*prompt, *as_turns(read_answer(record, "completion"))))
    row = answered(turns[: len(prompt)], turns[len(prompt) :], tools(record))
    if not isinstance(row, Conversation):
        raise TypeError("turns were joined")
    return row


def write_completion(row: Row) -> dict[str, Any]:
    """``prompt`` and ``completion``: text, or lists of messages where the prompt is not learned."""
    if isinstance(row, Completion):
        return {"prompt": row.prompt, "completion": row.completion}
    if not isinstance(row, Conversation):
        raise wrong_kind(row, "completion")
    start = next((i for i, turn in enumerate(row.messages) if turn.train), 0)
    if not start:
        raise refused("completion", "its turns before the answer are not marked train: false")
    prompt = tuple(replace(turn, train=True) for turn in row.messages[:start])
    sides = {"prompt": written(prompt), "completion": written(row.messages[start:])}
    return with_tools(sides, row.tools)


def plain(record: Mapping[str, Any]) -> Text:
    """``text``, all of which is learned; not when it holds turns, of which only answers are."""
    said = text(record, "text")
    if begins_with_a_turn(said):
        raise RowError(
            "wrong field", "'text' holds '### Human:' turns: set the source's format to guanaco"
        )
    if rendered := _RENDERED.match(said):
        raise RowError(
            "wrong field",
            f"'text' is a chat that is rendered already ({rendered['marker']!r}), and what the "
            "user says would be learned too: give the messages that it was made of",
        )
    if not said.strip():
        raise RowError("empty text", "'text' has no text")
    return Text(said)


_RENDERED = re.compile(
    r"\s*(?:<s>|<bos>|<\|begin_of_text\|>)?\s*(?P<marker>\[INST\]|<\|im_start\|>|<start_of_turn>"
    r"|<\|start_header_id\|>|<\|(?:system|user|assistant)\|>)"
)
"""How a conversation begins that a chat template has made text of."""


def write_plain(row: Row) -> dict[str, Any]:
    """``text``."""
    if not isinstance(row, Text):
        raise wrong_kind(row, "text")
    return {"text": row.text}
