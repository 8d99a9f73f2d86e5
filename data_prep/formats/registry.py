"""Every format by its name: how a record becomes a row."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from data_prep.errors import RowError
from data_prep.formats.alpaca import alpaca
from data_prep.formats.dolly import dolly
from data_prep.formats.fields import FOR_PREFERENCES, holds, verdict
from data_prep.formats.human_assistant import guanaco
from data_prep.formats.kto import kto
from data_prep.formats.openai import openai
from data_prep.formats.plain_text import completion, plain
from data_prep.formats.preference import preference
from data_prep.formats.question_answer import qa, self_instruct
from data_prep.formats.sharegpt import sharegpt
from data_prep.rows import Row

FormatName = Literal[
    "auto",
    "alpaca",
    "sharegpt",
    "openai",
    "completion",
    "guanaco",
    "dolly",
    "qa",
    "self_instruct",
    "text",
    "preference",
    "kto",
]

CONVERTERS: dict[str, Callable[[Mapping[str, Any]], Row]] = {
    "alpaca": alpaca,
    "sharegpt": sharegpt,
    "openai": openai,
    "completion": completion,
    "guanaco": guanaco,
    "dolly": dolly,
    "qa": qa,
    "self_instruct": self_instruct,
    "text": plain,
    "preference": preference,
    "kto": kto,
}


def convert(record: Mapping[str, Any], format_name: str) -> Row:
    """Make a row of a record.

    Raises:
        RowError: the record is not of this format, or says itself that its answer is a bad one
            and the format has no place for that.
    """
    if format_name not in ("preference", "kto"):
        _refuse_preference(record)
    return CONVERTERS[format_name](record)


def _refuse_preference(record: Mapping[str, Any]) -> None:
    """A row that says which answer is worse must not be taught as if every answer were right."""
    found = verdict(record)
    if holds(record, "chosen", "rejected") or found:
        other = f"; if {found[0]!r} means something else, rename that field" if found else ""
        raise RowError("preference row", FOR_PREFERENCES + other)
