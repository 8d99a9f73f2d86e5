"""Sources -> batches of records: each becomes one shard, in whatever process makes it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from data_prep.errors import DataError
from data_prep.formats.detection import Detected
from data_prep.reading import with_format
from data_prep.settings import DataConfig
from data_prep.sources.records import RawRecord

BATCH_BYTES = 32 * 2**20
"""A batch of records is closed at this size though it has fewer than ``shard_rows``."""

Chosen = tuple[RawRecord, Detected]
"""A record, not yet parsed, and the format to read it as."""


@dataclass(frozen=True)
class Batch:
    """Some records of one source, in order."""

    number: int
    source: int
    asked: str
    """The format that the source asks for."""
    full: bool
    """It was closed because it had enough, not because the source ended."""
    records: list[Chosen]


def batches(config: DataConfig) -> Iterator[Batch]:
    """All records of all sources, the validation's own source last.

    Raises:
        DataError: a source cannot be read, or has no rows.
    """
    number = 0
    for index, source in enumerate(config.all_sources):
        before = number
        for full, records in _grouped(with_format(source), config.shard_rows):
            yield Batch(number, index, source.format, full, records)
            number += 1
        if number == before:
            past = f" behind the first {source.skip} (skip)" if source.skip else ""
            raise DataError(f"{source.path}: has no rows{past}.")


def _grouped(records: Iterator[Chosen], most: int) -> Iterator[tuple[bool, list[Chosen]]]:
    group: list[Chosen] = []
    size = 0
    for record in records:
        group.append(record)
        size += _size(record[0].content)
        if len(group) == most or size >= BATCH_BYTES:
            yield True, group
            group, size = [], 0
    if group:
        yield False, group


def _size(content: Any) -> int:
    """About how many bytes a record takes, however deep its texts stand."""
    if isinstance(content, bytes | str):
        return len(content)
    if isinstance(content, Mapping):
        return sum(map(_size, content.values()))
    if isinstance(content, list | tuple):
        return sum(map(_size, content))
    return 100
