"""JSON as the standard has it: what Python's reader lets pass beside it is refused.

NaN and infinity (also as a number too large to be one), half a character, an object with a key
twice: of these Python would make something that cannot be written again, or lose a value without
a word.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """Stands where a value was that JSON does not allow."""

    text: str


_KINDS = {
    dict: "an object",
    list: "a list",
    str: "text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
    Problem: "what JSON does not allow",
}


def json_kind(value: object) -> str:
    """What a value is in JSON's words, for people."""
    return _KINDS.get(type(value), type(value).__name__)


def loads(text: str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: it is not JSON, or holds what the standard does not allow.
        RecursionError: it is nested too deep.
    """
    value, suspect = parse(text)
    found = find_problem(value) if suspect else None
    if found:
        raise ValueError(found.text)
    return value


def parse(text: str) -> tuple[Any, bool]:
    """Parse JSON, with a `Problem` where something stands that the standard does not allow.

    Returns:
        The value, and whether it may hold a problem: then `find_problem` tells.

    Raises:
        ValueError: it is not JSON at all.
        RecursionError: it is nested too deep.
    """
    try:
        value, end = _STRICT.raw_decode(text)
    except (_NotAllowed, ValueError):  # white space at the beginning is one
        if text.startswith("\ufeff"):
            raise json.JSONDecodeError("Unexpected UTF-8 byte order mark", text, 0) from None
        return _LENIENT.decode(text), True
    if end != len(text) and text[end:].strip(" \t\n\r"):
        return _LENIENT.decode(text), True
    return value, _may_hold_half(text, 0, len(text))


def parse_at(text: str, start: int) -> tuple[Any, int, bool]:
    """Parse the JSON value that begins at a place in a text, whatever comes after it.

    Returns:
        The value, where it ends, and whether it may hold a problem.

    Raises:
        ValueError: there is none.
        RecursionError: it is nested too deep.
    """
    try:
        value, end = _STRICT.raw_decode(text, start)
    except _NotAllowed:
        value, end = _LENIENT.raw_decode(text, start)
        return value, end, True
    return value, end, _may_hold_half(text, start, end)


class _NotAllowed(Exception):
    """Something that the standard does not allow: the value must be parsed with care."""


def _refuse(_name: str) -> Any:
    raise _NotAllowed


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise _NotAllowed
    return number


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _NotAllowed
    return found


def _finite_or_problem(digits: str) -> Any:
    number = float(digits)
    return Problem(f"{digits} is too large for a number") if math.isinf(number) else number


def _unrepeated_or_problem(pairs: list[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    counts = Counter(name for name, _ in pairs)
    repeated = next(name for name, count in counts.items() if count > 1)
    return Problem(f"the key {repeated!r} stands twice in one object")


# Nearly all text is without fault. Decoders that are made once, and one that gives up at the
# first fault, are 2.6 times as quick as one that is made anew for each text to note its faults.
_STRICT = json.JSONDecoder(
    parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_unrepeated
)
_LENIENT = json.JSONDecoder(
    parse_constant=lambda name: Problem(f"NaN and Infinity are not allowed, found {name}"),
    parse_float=_finite_or_problem,
    object_pairs_hook=_unrepeated_or_problem,
)


def _may_hold_half(text: str, start: int, end: int) -> bool:
    # From the quick search to the exact one: few texts need them all.
    return (
        text.find("\\", start, end) >= 0
        and text.find("\\u", start, end) >= 0
        and (text.find("\\ud", start, end) >= 0 or text.find("\\uD", start, end) >= 0)
    )


def find_problem(value: Any) -> Problem | None:
    """The first thing in a parsed value that the standard does not allow."""
    ahead = [value]  # not by recursion: JSON's reader goes deeper than Python does
    while ahead:
        each = ahead.pop()
        if isinstance(each, Problem):
            return each
        if isinstance(each, str):
            try:
                each.encode()
            except UnicodeEncodeError as error:
                half = f"\\u{ord(each[error.start]):04x}"
                return Problem(f"{half} alone is half a character, not text")
        elif isinstance(each, Mapping):
            ahead += reversed([*each.keys(), *each.values()])
        elif isinstance(each, list):
            ahead += reversed(each)
    return None
