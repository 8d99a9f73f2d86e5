"""Which format a record has, told from its fields, and why.

Several may fit: then the first of `RULES` is it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from data_prep.errors import RowError
from data_prep.formats.fields import verdict
from data_prep.formats.human_assistant import begins_with_a_turn
from data_prep.formats.question_answer import PAIRS
from data_prep.formats.registry import CONVERTERS
from data_prep.formats.unused import used_fields


@dataclass(frozen=True, slots=True)
class Detected:
    """The format of a record."""

    format: str
    because: str
    """What was seen: ``it has 'instruction' and 'output'``."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A format and what a record of it has."""

    format: str
    fields: tuple[str, ...]
    """All of these."""
    holds: Callable[[Mapping[str, Any]], str] = lambda _record: "it"
    """Words for what else a record must have; empty when it has it not."""


def _labelled(record: Mapping[str, Any]) -> str:
    found = verdict(record)
    return f"its {found[0]!r} says whether the answer is good, and it" if found else ""


def _marked(field: str) -> Callable[[Mapping[str, Any]], str]:
    def look(record: Mapping[str, Any]) -> str:
        marked = begins_with_a_turn(record.get(field))
        return (
            f"its {field!r} begins with '### Human:' or '### Assistant:', and it" if marked else ""
        )

    return look


def _nothing_else(record: Mapping[str, Any]) -> str:
    return "" if _other_texts(record) else "it has no other field that could be learned, and it"


def _other_texts(record: Mapping[str, Any]) -> list[str]:
    """Fields beside ``text`` that hold text or more, and are not known to describe the row."""
    return sorted(
        str(field)
        for field, value in record.items()
        if field != "text" and isinstance(value, str | list | Mapping) and value
        if str(field).lower() not in _DESCRIBES
    )


_DESCRIBES = (
    *("id", "_id", "uuid", "url", "link", "title", "source", "dataset", "subset", "domain"),
    *("date", "timestamp", "created", "added", "lang", "language", "meta", "metadata", "author"),
    *("license", "category", "label", "file", "path", "split", "type", "name"),
)

RULES = (
    Rule("preference", ("chosen", "rejected")),
    Rule("kto", ("messages",), _labelled),
    Rule("kto", ("conversations",), _labelled),
    Rule("kto", ("prompt", "completion"), _labelled),
    Rule("kto", ("instruction", "output"), _labelled),
    Rule("openai", ("messages",)),
    Rule("sharegpt", ("conversations",)),
    Rule("alpaca", ("instruction", "output")),
    Rule("dolly", ("instruction", "response")),
    Rule("self_instruct", ("instruction", "instances")),
    Rule("completion", ("prompt", "completion")),
    Rule("guanaco", ("input", "output"), _marked("input")),
    Rule("guanaco", ("text",), _marked("text")),
    *(Rule("qa", pair) for pair in PAIRS),
    Rule("text", ("text",), _nothing_else),
)
"""What tells formats apart. Fields that are null count as missing, unless nothing fits then.

Answers that are marked as good or bad come first, so that no bad one is ever taught. Then come
whole conversations, then single exchanges, from the more telling names to the less; plain text
comes last, and only where no other field could be what is to be learned.
"""


def detect(record: Mapping[str, Any]) -> Detected:
    """Name the format of a record from its fields.

    Raises:
        RowError: no format has these fields; it names the formats that come nearest.
    """
    held = {field: value for field, value in record.items() if value is not None}
    for fields in (held, record):
        found = [(rule, words) for rule in RULES if (words := _words(rule, fields))]
        if found:
            rule, because = found[0]
            passed_over = _passed_over(rule, [other for other, _ in found], fields)
            return Detected(rule.format, because + passed_over)
    raise RowError("unknown format", _unknown(record))


def _passed_over(rule: Rule, fitting: Sequence[Rule], record: Mapping[str, Any]) -> str:
    """Which other formats fit, for fields that the chosen one makes nothing of."""
    fitting = [other for other in fitting if other.format != rule.format]
    try:
        known = set(used_fields(record, rule.format)) if fitting else set()
    except RowError:  # what is wrong with it is said when it is read
        return ""
    others = [other.format for other in fitting if not set(other.fields) <= known]
    return f" ({rule.format} goes before {', '.join(dict.fromkeys(others))})" if others else ""


def _words(rule: Rule, record: Mapping[str, Any]) -> str:
    """Why a record fits a rule; empty when it does not."""
    if not all(field in record for field in rule.fields):
        return ""
    first = rule.holds(record)
    return f"{first} has {' and '.join(map(repr, rule.fields))}" if first else ""


def _unknown(record: Mapping[str, Any]) -> str:
    names = sorted(map(str, record))
    shown = ", ".join(names[:_MOST_FIELDS]) or "none"
    more = f" and {len(names) - _MOST_FIELDS} more" if len(names) > _MOST_FIELDS else ""
    return f"fields {shown}{more}; formats: {', '.join(CONVERTERS)}{_nearest(record)}"


_MOST_FIELDS = 8


def _nearest(record: Mapping[str, Any]) -> str:
    """What the formats lack that a record has some field of, or nearly has."""
    hints = []
    for rule in RULES:
        lacking = [field for field in rule.fields if field not in record]
        if lacking and len(lacking) < len(rule.fields) and rule.holds(record):
            hints.append(f"{rule.format} (lacks {lacking[0]!r})")
    hints += _misspelt(tuple(sorted(map(str, record))))
    if isinstance(record.get("text"), str) and _other_texts(record):
        hints.append(f"text, were it not for {_other_texts(record)[0]!r}: say so with format: text")
    return f"; nearest: {', '.join(dict.fromkeys(hints[:_MOST_HINTS]))}" if hints else ""


@lru_cache(maxsize=64)
def _misspelt(names: Sequence[str]) -> tuple[str, ...]:
    """Fields nearly called as a format calls them; remembered, as rows mostly have the same."""
    known = dict.fromkeys(field for rule in RULES for field in rule.fields)
    close = {name: get_close_matches(name, known, 1, 0.87) for name in names if name not in known}
    return tuple(f"is {name!r} meant to be {near[0]!r}?" for name, near in close.items() if near)


_MOST_HINTS = 3
