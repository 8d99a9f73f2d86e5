"""Parquet files."""

from collections.abc import Iterator
from pathlib import Path

from data_prep.errors import DataError
from data_prep.sources.arrow_rows import ROWS_AT_ONCE, arrow_rows, refuse_unreadable
from data_prep.sources.columns import refuse_repeated
from data_prep.sources.records import RawRecord

PAGES = 2**20
"""Bytes of a column read at once: without it whole row groups are, and those may be gigabytes."""


def scan_parquet(path: Path) -> Iterator[RawRecord]:
    """Read a table.

    Raises:
        DataError: it is not Parquet, is damaged, or its columns cannot be told apart.
    """
    import pyarrow
    import pyarrow.parquet

    index = 0
    try:
        with pyarrow.parquet.ParquetFile(path, buffer_size=PAGES) as file:
            refuse_repeated(str(path), file.schema_arrow.names)
            refuse_unreadable(str(path), file.schema_arrow)
            for batch in file.iter_batches(ROWS_AT_ONCE):
                for value in arrow_rows(batch):
                    yield RawRecord(f"{path}[{index}]", value, "value")
                    index += 1
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        after = f" after {index} rows" if index else ""
        raise DataError(f"{path}: cannot be read as Parquet{after}: {error}") from None
