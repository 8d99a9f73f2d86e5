"""Data sets that `datasets` loads: from the hub, or from a folder it made itself."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.errors import DataError
from data_prep.sources.arrow_rows import ROWS_AT_ONCE, arrow_rows, refuse_filled_structs
from data_prep.sources.config import SourceConfig
from data_prep.sources.files import SAVED_MARKS
from data_prep.sources.records import RawRecord


def scan_dataset(source: SourceConfig) -> Iterator[RawRecord]:
    """Read a data set.

    A record's place is ``path[@revision][/name]/split[index]``.

    Raises:
        DataError: it cannot be loaded, now or after some rows.
    """
    revision = f"@{source.revision}" if source.revision else ""
    name = f"/{source.name}" if source.name else ""
    place = f"{source.path}{revision}{name}/{source.split}"
    index = 0
    checked = None
    try:
        for table in _load(source).with_format("arrow").iter(ROWS_AT_ONCE):
            if table.schema != checked:
                refuse_filled_structs(source.path, table.schema)
                checked = table.schema
            for value in arrow_rows(table):
                yield RawRecord(f"{place}[{index}]", value, "value")
                index += 1
    except DataError:
        raise
    except Exception as error:  # datasets raises a dozen kinds, network errors among them
        what = f"reading it failed after {index} rows" if index else "it could not be loaded"
        raise DataError(
            f"{source.path}: not a file here, and as a data set of `datasets` {what} "
            f"(split {source.split!r}): {type(error).__name__}: {error}"
        ) from None


def _load(source: SourceConfig) -> Any:
    import datasets

    if not any((Path(source.path) / mark).is_file() for mark in SAVED_MARKS):
        return datasets.load_dataset(
            source.path,
            name=source.name,
            split=source.split,
            revision=source.revision,
            streaming=source.streaming,
        )
    if source.name or source.revision or source.streaming:
        raise DataError(f"{source.path}: name, revision and streaming are for hub data sets.")
    saved = datasets.load_from_disk(source.path)
    if isinstance(saved, datasets.DatasetDict):
        if source.split not in saved:
            raise DataError(
                f"{source.path}: no split {source.split!r}. Allowed: {', '.join(saved)}."
            )
        return saved[source.split]
    if source.split not in ("train", str(saved.split)):
        raise DataError(f"{source.path}: holds the split {str(saved.split)!r} only.")
    return saved
