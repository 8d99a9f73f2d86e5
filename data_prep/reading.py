"""Sources -> rows: each record read, converted and checked, or why it cannot be used."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from data_prep.errors import RowError
from data_prep.formats.detection import Detected, detect
from data_prep.formats.registry import convert
from data_prep.formats.unused import unused_fields
from data_prep.row_checks import check_row, merge_roles
from data_prep.rows import Row
from data_prep.sources.config import SourceConfig
from data_prep.sources.parsing import parse_record
from data_prep.sources.records import BadRecord, RawRecord, Record
from data_prep.sources.scan import scan

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
    for raw, chosen in with_format(source):
        yield read_row(parse_record(raw), source.format, chosen, roles)


def with_format(source: SourceConfig) -> Iterator[tuple[RawRecord, Detected]]:
    """The unparsed records of a source, each with the format that it is to be read as, and why.

    Of an ``auto`` source that is ``auto`` up to the first record whose fields tell the format.

    Raises:
        DataError: the source cannot be read as a whole.
    """
    chosen = Detected(source.format, "")
    for raw in scan(source):
        if chosen.format == "auto" and isinstance(record := parse_record(raw), Record):
            with suppress(RowError, RecursionError):
                chosen = detect(record.value)
        yield raw, chosen


def read_row(
    record: Record | BadRecord, asked: str, chosen: Detected, roles: RolesPolicy
) -> ReadRow | Unusable:
    """Make a row of a record.

    Args:
        record: what a source gave.
        asked: the format that the source asks for; maybe ``auto``.
        chosen: the format to read it as, and why; ``auto`` when none was recognised up to here.
        roles: what becomes of a broken order of roles.
    """
    if isinstance(record, BadRecord):
        return Unusable(record.where, RowError("malformed", record.problem))
    try:
        known = detect(record.value) if chosen.format == "auto" else chosen
        name = known.format
        row = convert(record.value, name)
        merged = _checked(row, roles)
        unused = frozenset(unused_fields(record.value, name))
        note = " (from its fields)" if asked == "auto" else ""
        return ReadRow(record.where, merged, name + note, merged != row, unused, known.because)
    except RowError as error:
        return Unusable(record.where, _hinted(error, record.value, asked, chosen.format))
    except RecursionError:
        return Unusable(record.where, RowError("malformed", "its values are nested too deep"))


def _hinted(error: RowError, record: Mapping[str, Any], asked: str, chosen: str) -> RowError:
    """Say which format a record looks like when it is not of the one that it is read as."""
    if chosen == "auto" or error.reason not in ("missing field", "wrong field"):
        return error
    with suppress(RowError, RecursionError):
        looks = detect(record).format
        if looks != chosen:
            remedy = f"set the source's format to {looks}"
            if asked == "auto":
                remedy = f"the source is read as {chosen}: give such rows a source of their own"
            return RowError(error.reason, f"{error.detail}; it looks like {looks}: {remedy}")
    return error


def _checked(row: Row, roles: RolesPolicy) -> Row:
    merged = merge_roles(row) if roles == "merge" else row
    try:
        check_row(merged)
    except RowError as error:
        if error.reason != "role order" or not _mended_by_merging(row):
            raise
        detail = f"{error.detail}; roles: merge would join such turns"
        raise RowError(error.reason, detail) from None
    return merged


def _mended_by_merging(row: Row) -> bool:
    try:
        check_row(merge_roles(row))
    except RowError:
        return False
    return True
