"""A raw row on its way from a source: before and after it is parsed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple


class RawRecord(NamedTuple):
    """A row as it was found; parsing it is left to whoever needs it, in another process perhaps.

    A tuple, because one is made for every row of every source: half a frozen dataclass's cost.
    """

    where: str
    """``file:line`` for line formats and text, ``file[index]`` for arrays and tables."""
    content: Any
    """The bytes of a line or text; a parsed value; or why the row cannot be read."""
    kind: Literal["json", "text", "value", "problem"]
    """What ``content`` is."""


@dataclass(frozen=True, slots=True)
class Record:
    """One raw row."""

    where: str
    """As in `RawRecord`."""
    value: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A row that could not even be read."""

    where: str
    problem: str
