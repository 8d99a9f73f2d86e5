"""Plain text, rendered without a chat template: a prompt with its completion, or just text."""

from collections.abc import Mapping
from typing import Any

from data_prep.errors import RowError
from data_prep.formats.fields import text
from data_prep.formats.human_assistant import begins_with_a_turn
from data_prep.formats.refusals import wrong_kind
from data_prep.rows import Completion, Row, Text


def completion(record: Mapping[str, Any]) -> Completion:
    """``prompt`` and ``completion``, rendered without a chat template."""
    row = Completion(text(record, "prompt"), text(record, "completion"))
    if not row.completion.strip():
        raise RowError("empty answer", "'completion' has no text")
    return row


def write_completion(row: Row) -> dict[str, Any]:
    """``prompt`` and ``completion``."""
    if not isinstance(row, Completion):
        raise wrong_kind(row, "completion")
    return {"prompt": row.prompt, "completion": row.completion}


def plain(record: Mapping[str, Any]) -> Text:
    """``text``, all of which is learned; not when it holds ``### Human:`` turns."""
    said = text(record, "text")
    if begins_with_a_turn(said):
        raise RowError(
            "wrong field", "'text' holds '### Human:' turns: set the source's format to guanaco"
        )
    if not said.strip():
        raise RowError("empty text", "'text' has no text")
    return Text(said)


def write_plain(row: Row) -> dict[str, Any]:
    """``text``."""
    if not isinstance(row, Text):
        raise wrong_kind(row, "text")
    return {"text": row.text}
