"""SourceConfig -> records: the way into this package."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from data_prep.errors import DataError
from data_prep.sources.blocks import BrokenStreamError, read_blocks
from data_prep.sources.config import SourceConfig, TextUnit
from data_prep.sources.csv_table import scan_csv
from data_prep.sources.files import find_files
from data_prep.sources.hub import scan_dataset
from data_prep.sources.json_array import scan_json
from data_prep.sources.jsonl import scan_jsonl
from data_prep.sources.kinds import FileKind, kind_of
from data_prep.sources.parquet import scan_parquet
from data_prep.sources.parsing import parse_record
from data_prep.sources.plain_text import scan_text
from data_prep.sources.records import BadRecord, RawRecord, Record


def read(source: SourceConfig) -> Iterator[Record | BadRecord]:
    """Read a source from its beginning.

    A row that cannot be read is answered as a ``BadRecord`` and reading goes on; whether that
    is an error is the pipeline's decision (``on_error``).

    Args:
        source: the files or the data set.

    Yields:
        Records in the source's own order, after ``skip`` and up to ``take``.

    Raises:
        DataError: the source is missing, is of an unknown kind, or cannot be read as a whole.
    """
    return map(parse_record, scan(source))


def scan(source: SourceConfig) -> Iterator[RawRecord]:
    """Find a source's records, and leave what costs most, parsing lines, to `parse_record`.

    Args:
        source: the files or the data set.

    Yields:
        As `read`, not yet parsed. Memory is bounded by the longest record.

    Raises:
        DataError: as `read`.
    """
    files = find_files(source.path, source.split)
    _refuse_settings_of_others(source, files)
    found = scan_dataset(source) if files is None else _scan_files(files, source.text_unit)
    stop = None if source.take is None else source.skip + source.take
    yield from islice(found, source.skip, stop)


def _refuse_settings_of_others(source: SourceConfig, files: Sequence[Path] | None) -> None:
    """Refuse what only the files found show to be without effect."""
    if files is not None:
        in_folder = Path(source.path).is_dir()
        wrong = [name for name in source.hub_settings() if not (in_folder and name == "split")]
        if wrong:
            raise DataError(f"{source.path}: {wrong[0]} is for hub data sets; these are files.")
    kinds = [kind_of(file) for file in files or ()]
    if source.text_unit != "line" and not any(kind and kind.format == "text" for kind in kinds):
        raise DataError(f"{source.path}: text_unit is for .txt files, and there are none.")


def _scan_files(files: Sequence[Path], unit: TextUnit) -> Iterator[RawRecord]:
    for file in files:
        kind = kind_of(file)
        if kind is None:
            raise ValueError(f"{file}: files of unknown kinds are left out before")
        last = ""
        try:
            for record in _scan_file(file, kind, unit):
                yield record
                last = record.where
        except BrokenStreamError as error:
            reached = f"rows up to {last} could be read" if last else "no row could be read"
            remedy = f" {error.remedy}." if error.remedy else ""
            raise DataError(f"{file}: {error}; {reached}.{remedy}") from None
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {error.strerror or error}") from None


def _scan_file(file: Path, kind: FileKind, unit: TextUnit) -> Iterator[RawRecord]:
    path = str(file)
    if kind.format == "parquet":
        if kind.compression:
            raise DataError(f"{path}: Parquet is compressed in itself; unpack the file first.")
        return scan_parquet(file)
    blocks = read_blocks(file, kind.compression)
    match kind.format:
        case "json":
            return scan_json(path, blocks)
        case "jsonl":
            return scan_jsonl(path, blocks)
        case "text":
            return scan_text(path, blocks, unit)
        case _:
            return scan_csv(path, blocks, "\t" if kind.format == "tsv" else ",")
