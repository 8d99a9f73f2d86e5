"""Every format by its name: how a record becomes a row, and which of its fields are made use of."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from data_prep.errors import RowError
from data_prep.formats.alpaca import alpaca
from data_prep.formats.dolly import dolly
from data_prep.formats.fields import NOT_FOR_SFT, SYSTEM_FIELDS, holds, verdict
from data_prep.formats.human_assistant import guanaco
from data_prep.formats.kto import kto
from data_prep.formats.openai import openai
from data_prep.formats.plain_text import completion, plain
from data_prep.formats.preference import is_plain, preference
from data_prep.formats.question_answer import PAIRS, qa, self_instruct
from data_prep.formats.sharegpt import sharegpt
from data_prep.formats.tool_calls import EMPTY, unused_in_tools
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
        raise RowError("preference row", NOT_FOR_SFT + other)


_OFFERED = ("tools", "functions")
_ALPACA_PROMPT = ("instruction", "input", *SYSTEM_FIELDS, "history")
FIELDS: dict[str, tuple[str, ...]] = {
    "alpaca": (*_ALPACA_PROMPT, "output"),
    "sharegpt": ("conversations", *SYSTEM_FIELDS, *_OFFERED),
    "openai": ("messages", *SYSTEM_FIELDS, *_OFFERED),
    "completion": ("prompt", "completion"),
    "guanaco": ("text", "input", "output"),
    "dolly": ("instruction", "context", "response", *SYSTEM_FIELDS),
    "qa": (*SYSTEM_FIELDS, "context", *(field for pair in PAIRS for field in pair)),
    "self_instruct": ("instruction", "instances"),
    "text": ("text",),
    "preference": (
        *("chosen", "rejected", "prompt", "conversations", "messages", "question", "context"),
        *(*_ALPACA_PROMPT, *_OFFERED),
    ),
    "kto": (
        *("label", "kto_tag", "completion", "prompt", "messages", "conversations", "output"),
        *("question", "context", *_ALPACA_PROMPT, *_OFFERED),
    ),
}
"""The fields that each format makes something of."""
_TURNS = ("conversations", "messages", "prompt", "completion", "chosen", "rejected")
"""Fields that may hold turns."""
_TURN_FIELDS = (
    *("from", "value", "role", "content", "train", "weight"),
    *("tool_calls", "function_call", "tool_call_id"),
)


def unused_fields(record: Mapping[str, Any], format_name: str) -> set[str]:
    """Names of fields that hold something and that a format makes nothing of."""
    known = FIELDS[format_name]
    if format_name in _MAYBE_TEXT:
        told = _told_in_turns(record, format_name)
        known = (
            *(f for f in known if f not in _OFFERED),
            *((*SYSTEM_FIELDS, *_OFFERED) if told else ()),
        )
    unused = {str(f) for f in record if f not in known and record[f] not in EMPTY}
    for field in (field for field in _TURNS if field in known):
        for turn in _turns(record.get(field)):
            extra = {name for name in turn if name not in _TURN_FIELDS}
            unused |= {f"{field}[].{name}" for name in extra if turn[name] not in EMPTY}
    if "tools" in known:
        unused |= {f"tools[].{name}" for name in unused_in_tools(record)}
    return unused


_MAYBE_TEXT = ("completion", "preference", "kto")
"""Formats whose rows may be plain text, which has no place for a system message or tools."""


def _told_in_turns(record: Mapping[str, Any], format_name: str) -> bool:
    fields = ("prompt", "completion", "chosen", "rejected")
    if any(isinstance(record.get(field), list | Mapping) for field in fields):
        return True
    return format_name != "completion" and not is_plain(record)


def _turns(value: object) -> Iterator[Mapping[str, Any]]:
    for turn in value if isinstance(value, list) else [value]:
        if isinstance(turn, Mapping):
            yield turn
