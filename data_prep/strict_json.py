"""JSON as the standard has it: what Python's reader lets pass beside it is refused.

NaN and infinity (also as a number too large to be one), half a character, an object with a key
twice: of these Python would make something that cannot be written again, or lose a value without
a word.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """Stands where a value was that JSON does not allow."""

    text: str


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
    problems: list[Problem] = []

    def note(problem: str) -> Problem:
        problems.append(Problem(problem))
        return problems[-1]

    def finite(digits: str) -> Any:
        number = float(digits)
        return number if math.isfinite(number) else note(f"{digits} is too large for a number")

    def unrepeated(pairs: list[tuple[str, Any]]) -> Any:
        found = dict(pairs)
        if len(found) == len(pairs):
            return found
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        return note(f"the key {repeated!r} stands twice in one object")

    value = json.loads(
        text,
        parse_constant=lambda name: note(f"NaN and Infinity are not allowed, found {name}"),
        parse_float=finite,
        object_pairs_hook=unrepeated,
    )
    return value, bool(problems) or "\\ud" in text or "\\uD" in text


def find_problem(value: Any) -> Problem | None:
    """The first thing in a parsed value that the standard does not allow."""
    if isinstance(value, Problem):
        return value
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(value[error.start]):04x}"
            return Problem(f"{half} alone is half a character, not text")
        return None
    if isinstance(value, Mapping):
        inner = [*value.keys(), *value.values()]
    else:
        inner = value if isinstance(value, list) else []
    return next((found for each in inner if (found := find_problem(each))), None)
