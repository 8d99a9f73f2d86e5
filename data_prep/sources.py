"""Files and data sets -> raw records, each with the place it came from."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field

from data_prep.errors import DataError
from data_prep.formats import FormatName

SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")


class SourceConfig(BaseModel):
    """One place that rows come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(min_length=1)
    """A .json, .jsonl, .csv or .parquet file, or a data set id on the hub (``owner/name``)."""
    format: FormatName = "auto"
    """How a record becomes a conversation; ``auto`` looks at the fields and says what it chose."""
    split: str = "train"
    """Which split of a hub data set."""


@dataclass(frozen=True, slots=True)
class Record:
    """One raw row."""

    where: str
    """``file:line`` for line formats, ``file[index]`` for arrays and tables."""
    value: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A row that could not even be read."""

    where: str
    problem: str


def read(source: SourceConfig) -> Iterator[Record | BadRecord]:
    """Read a source from its beginning.

    A line of a line format that cannot be read is answered as a ``BadRecord`` and reading goes
    on; whether that is an error is the pipeline's decision (``on_error``).

    Args:
        source: the file or data set.

    Yields:
        Records in the source's own order.

    Raises:
        DataError: the file is missing, is of an unknown kind, or cannot be read as a whole.
    """
    path = Path(source.path)
    readers = {".json": _json, ".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
    if path.is_file():
        reader = readers.get(path.suffix.lower())
        if reader is None:
            raise DataError(
                f"{path}: files of kind {path.suffix!r} cannot be read. "
                f"Allowed: {', '.join(SUFFIXES)}, or a data set id on the hub."
            )
        yield from reader(path)
    elif path.is_dir() or _looks_like_hub_id(source.path):
        yield from _dataset(source)
    else:
        raise DataError(
            f"{source.path}: no such file (looked in {Path.cwd()}). "
            "Give a path to a .json, .jsonl, .csv or .parquet file, or a hub id (owner/name)."
        )


def _looks_like_hub_id(path: str) -> bool:
    parts = path.split("/")
    return len(parts) == 2 and all(parts) and not Path(path).suffix and parts[0] not in (".", "..")


def _jsonl(path: Path) -> Iterator[Record | BadRecord]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{path}:{number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                yield BadRecord(where, f"not UTF-8: {error.reason} at byte {error.start}")
                continue
            if text.strip():
                yield _parsed(where, text)


def _parsed(where: str, text: str) -> Record | BadRecord:
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        return BadRecord(where, f"not JSON: {error}")
    if not isinstance(value, dict):
        return BadRecord(where, f"not a JSON object but {type(value).__name__}")
    return Record(where, value)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not allowed in JSON")


def _json(path: Path) -> Iterator[Record | BadRecord]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: not JSON: {error.msg} (column {error.colno}). "
            "A file with one object a line wants the ending .jsonl."
        ) from None
    except ValueError as error:
        raise DataError(f"{path}: cannot be read as JSON in UTF-8: {error}") from None
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected a JSON array of objects, found {type(rows).__name__}.")
    for index, value in enumerate(rows):
        if isinstance(value, dict):
            yield Record(f"{path}[{index}]", value)
        else:
            yield BadRecord(f"{path}[{index}]", f"not an object but {type(value).__name__}")


def _csv(path: Path) -> Iterator[Record | BadRecord]:
    csv.field_size_limit(2**31 - 1)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            for row in reader:
                where = f"{path}:{reader.line_num}"
                if None in row:
                    yield BadRecord(where, "more fields than the header names")
                elif None in row.values():
                    yield BadRecord(where, "fewer fields than the header names")
                else:
                    yield Record(where, row)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as CSV in UTF-8: {error}") from None


def _parquet(path: Path) -> Iterator[Record | BadRecord]:
    import pyarrow
    import pyarrow.parquet

    try:
        index = 0
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
            for value in batch.to_pylist():
                yield Record(f"{path}[{index}]", value)
                index += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from None


def _dataset(source: SourceConfig) -> Iterator[Record | BadRecord]:
    import datasets

    try:
        loaded = datasets.load_dataset(source.path, split=source.split)
    except Exception as error:  # datasets raises a dozen kinds, network errors among them
        raise DataError(
            f"{source.path}: not a file here, and it could not be loaded as a hub data set "
            f"(split {source.split!r}): {type(error).__name__}: {error}"
        ) from None
    for index, value in enumerate(loaded):
        yield Record(f"{source.path}/{source.split}[{index}]", value)
