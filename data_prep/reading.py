"""Sources -> rows: each record read, converted and checked, or why it cannot be used."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from data_prep.errors import RowError
from data_prep.formats.detection import detect
from data_prep.formats.registry import convert, unused_fields
from data_prep.row_checks import check_row, merge_roles
from data_prep.rows import Row
from data_prep.sources import BadRecord, SourceConfig, read

RolesPolicy = Literal["refuse", "drop", "merge"]


@dataclass(frozen=True, slots=True)
class ReadRow:
    """A row, and what happened to the record it was made of."""

    where: str
    row: Row
    format: str
    """Which format it was read as; with ``(from its fields)`` when it was detected."""
    merged: bool
    """Repeated roles were joined."""
    unused: frozenset[str]
    """Fields of the record that nothing was made of."""
    because: str = ""
    """Why this format, when it was detected: ``it has 'instruction' and 'output'``."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """A record that no row can be made of."""

    where: str
    error: RowError


def read_rows(source: SourceConfig, roles: RolesPolicy) -> Iterator[ReadRow | Unusable]:
    """Read a source from its beginning; its first readable record decides an ``auto`` format.

    Raises:
        DataError: the source cannot be read as a whole.
    """
    chosen: str = source.format
    note = because = ""
    for record in read(source):
        if isinstance(record, BadRecord):
            yield Unusable(record.where, RowError("malformed", record.problem))
            continue
        try:
            if chosen == "auto":
                found = detect(record.value)
                chosen, because, note = found.format, found.because, " (from its fields)"
            row = convert(record.value, chosen)
            merged = _checked(row, roles)
            unused = frozenset(unused_fields(record.value, chosen))
            yield ReadRow(record.where, merged, chosen + note, merged != row, unused, because)
        except RowError as error:
            yield Unusable(record.where, _hinted(error, record.value, source.format))


def _hinted(error: RowError, record: Mapping[str, Any], asked: str) -> RowError:
    """Say which format a record looks like when it is not of the one that was asked for."""
    if asked == "auto" or error.reason not in ("missing field", "wrong field"):
        return error
    with suppress(RowError):
        looks = detect(record).format
        if looks != asked:
            detail = f"{error.detail}; it looks like {looks}: set the source's format to {looks}"
            return RowError(error.reason, detail)
    return error


def _checked(row: Row, roles: RolesPolicy) -> Row:
    merged = merge_roles(row) if roles == "merge" else row
    check_row(merged)
    return merged
