"""Files and data sets -> raw records, each with the place it came from."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from data_prep.errors import DataError
from data_prep.formats.registry import FormatName
from data_prep.strict_json import find_problem, parse

if TYPE_CHECKING:
    import pyarrow

SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")


class SourceConfig(BaseModel):
    """One place that rows come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(min_length=1)
    """A .json, .jsonl, .csv or .parquet file, a folder that `datasets` can load, or a data set id
    on the hub (``owner/name``)."""
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
    if _is_file(path):
        reader = readers.get(path.suffix.lower())
        if reader is None:
            raise DataError(
                f"{path}: files of kind {path.suffix!r} cannot be read. "
                f"Allowed: {', '.join(SUFFIXES)}, or a data set id on the hub."
            )
        try:
            yield from reader(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    elif path.is_dir() or _looks_like_hub_id(source.path):
        yield from _dataset(source)
    else:
        raise DataError(
            f"{source.path}: no such file (looked in {Path.cwd()}). "
            "Give a path to a .json, .jsonl, .csv or .parquet file, or a hub id (owner/name)."
        )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:  # a name too long, for one
        raise DataError(f"{str(path)[:80]}: cannot be read: {error.strerror}") from None


def _looks_like_hub_id(path: str) -> bool:
    parts = path.split("/")
    ending = Path(path).suffix[1:]  # of OpenHermes-2.5, "5": part of the name
    owner_is_a_folder = Path(parts[0]).is_dir()  # then a file in it was meant
    return (
        len(parts) == 2
        and all(parts)
        and not ending.isalpha()
        and parts[0] not in (".", "..")
        and not owner_is_a_folder
    )


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
        value, suspect = parse(text)
    except (ValueError, RecursionError) as error:
        return BadRecord(where, f"not JSON: {error}")
    return _object(where, value, suspect)


def _object(where: str, value: object, suspect: bool) -> Record | BadRecord:  # noqa: FBT001
    problem = find_problem(value) if suspect else None
    if problem:
        return BadRecord(where, f"not JSON: {problem.text}")
    if isinstance(value, dict):
        return Record(where, value)
    return BadRecord(where, f"not a JSON object but {type(value).__name__}")


def _text(path: Path) -> str:
    """The whole of a text file.

    Raises:
        DataError: it is not UTF-8; the message names the line.
    """
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: not UTF-8: {error.reason}") from None


def _json(path: Path) -> Iterator[Record | BadRecord]:
    try:
        rows, suspect = parse(_text(path))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: not JSON: {error.msg} (column {error.colno}). "
            "A file with one object a line wants the ending .jsonl."
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected a JSON array of objects, found {type(rows).__name__}.")
    for index, value in enumerate(rows):
        yield _object(f"{path}[{index}]", value, suspect)


def _csv(path: Path) -> Iterator[Record | BadRecord]:
    csv.field_size_limit(2**31 - 1)
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        _refuse_repeated(path, reader.fieldnames or ())
        before = reader.line_num
        for row in reader:
            where = f"{path}:{before + 1}"
            before = reader.line_num
            if None in row:
                yield BadRecord(where, "more fields than the header names")
            elif None in row.values():
                yield BadRecord(where, "fewer fields than the header names")
            else:
                yield Record(where, row)
    except csv.Error as error:
        raise DataError(
            f"{path}:{reader.reader.line_num}: cannot be read as CSV: {error}"
        ) from None


def _refuse_repeated(path: Path, columns: Sequence[str]) -> None:
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: several columns are named {', '.join(map(repr, repeated))}.")


def _parquet(path: Path) -> Iterator[Record | BadRecord]:
    import pyarrow
    import pyarrow.parquet

    try:
        index = 0
        file = pyarrow.parquet.ParquetFile(path)
        _refuse_repeated(path, file.schema_arrow.names)
        _refuse_filled_structs(str(path), file.schema_arrow)
        for batch in file.iter_batches():
            for value in _json_columns(batch).to_pylist():
                yield Record(f"{path}[{index}]", value)
                index += 1
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from None


def _json_columns(batch: "pyarrow.RecordBatch") -> "pyarrow.RecordBatch":
    """Leave out columns that hold no JSON values (dates, decimals, bytes): no format reads them."""
    import pyarrow

    def plain(kind: pyarrow.DataType) -> bool:
        if pyarrow.types.is_nested(kind):
            return all(plain(kind.field(i).type) for i in range(kind.num_fields))
        tests = ("is_string", "is_large_string", "is_integer", "is_floating", "is_boolean")
        return pyarrow.types.is_null(kind) or any(
            getattr(pyarrow.types, test)(kind) for test in tests
        )

    return batch.select([field.name for field in batch.schema if plain(field.type)])


def _refuse_filled_structs(where: str, schema: "pyarrow.Schema") -> None:
    """Refuse call arguments and parameters as structs: Arrow gives each the keys of all others."""
    import pyarrow

    def look(kind: pyarrow.DataType) -> None:
        for index in range(kind.num_fields):
            field = kind.field(index)
            if field.name in ("arguments", "properties") and pyarrow.types.is_struct(field.type):
                raise DataError(
                    f"{where}: {field.name!r} is a struct column. Arrow fills in null for every "
                    "key that another row has, and that would be trained. Store it as JSON text."
                )
            look(field.type)

    look(pyarrow.struct(list(schema)))


def _dataset(source: SourceConfig) -> Iterator[Record | BadRecord]:
    import datasets

    try:
        loaded = datasets.load_dataset(source.path, split=source.split)
        _refuse_filled_structs(source.path, loaded.features.arrow_schema)
        for index, value in enumerate(loaded):
            yield Record(f"{source.path}/{source.split}[{index}]", value)
    except DataError:
        raise
    except Exception as error:  # datasets raises a dozen kinds, network errors among them
        raise DataError(
            f"{source.path}: not a file here, and it could not be loaded as a hub data set "
            f"(split {source.split!r}): {type(error).__name__}: {error}"
        ) from None
