"""Rows -> records: every format that can be written, and proof that nothing is lost."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, Literal

from data_prep.errors import RowError
from data_prep.formats.alpaca import write_alpaca
from data_prep.formats.dolly import write_dolly
from data_prep.formats.human_assistant import write_guanaco
from data_prep.formats.kto import write_kto
from data_prep.formats.openai import write_openai
from data_prep.formats.plain_text import write_completion, write_plain
from data_prep.formats.preference import write_preference
from data_prep.formats.question_answer import write_qa
from data_prep.formats.refusals import refused
from data_prep.formats.registry import convert
from data_prep.formats.sharegpt import write_sharegpt
from data_prep.formats.tool_calls import renumbered
from data_prep.rows import Conversation, Message, Row

WrittenFormat = Literal[
    "alpaca",
    "sharegpt",
    "openai",
    "completion",
    "guanaco",
    "dolly",
    "qa",
    "text",
    "preference",
    "kto",
]

WRITERS: dict[str, Callable[[Row], dict[str, Any]]] = {
    "alpaca": write_alpaca,
    "sharegpt": write_sharegpt,
    "openai": write_openai,
    "completion": write_completion,
    "guanaco": write_guanaco,
    "dolly": write_dolly,
    "qa": write_qa,
    "text": write_plain,
    "preference": write_preference,
    "kto": write_kto,
}


def write_record(row: Row, format_name: str) -> dict[str, Any]:
    """Make a record of a row, so that reading it gives the same row again.

    It is read again at once to make sure. What may differ are the ids of calls in sharegpt, which
    has no place for them; which result belongs to which call does not.

    Raises:
        RowError: ``cannot be written as ...``: the format has no place for something in the row;
            the detail names it.
    """
    record = WRITERS[format_name](row)
    try:
        again = convert(record, format_name)
    except RowError as error:
        raise refused(format_name, f"it could not be read again: {error}") from None
    if format_name == "sharegpt" and isinstance(row, Conversation):
        row = replace(row, messages=renumbered(row.messages))
    if again != row:
        raise refused(format_name, _lost(row, again))
    return record


def _lost(row: Row, again: Row) -> str:
    """What of a row is not the same when it is read again."""
    if type(row) is not type(again):
        return f"it would be read again as a {type(again).__name__.lower()} row"
    for field in fields(row):
        one, other = getattr(row, field.name), getattr(again, field.name)
        if one != other:
            if field.name == "tools" or isinstance(one, str | bool) or isinstance(other, str):
                return f"its {field.name} would be changed"
            return _lost_turn(one, other, field.name)
    return "it would be changed"


def _lost_turn(turns: Sequence[Message], again: Sequence[Message], name: str) -> str:
    if len(turns) != len(again):
        return f"its {len(turns)} turns in {name!r} would become {len(again)}"
    index = next(i for i, turn in enumerate(turns) if turn != again[i])
    one, other = turns[index], again[index]
    part = next(f.name for f in fields(one) if getattr(one, f.name) != getattr(other, f.name))
    return f"the {part} of turn {index + 1} ({one.role}) would be changed"
