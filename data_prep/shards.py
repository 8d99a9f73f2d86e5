"""Arrow files that stages leave for one another: whole or absent, memory-mapped when read.

A stage maps a pure function over batches and leaves one file a batch. A file is written beside and
renamed, so that a stage which was killed finds the files it had finished and makes only the rest.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_FIGURES = b"figures"


@dataclass(frozen=True)
class Shards:
    """The files of one stage, numbered from 0."""

    folder: Path

    def path(self, number: int) -> Path:
        """Where a shard is, or will be."""
        return self.folder / f"{number:06}.arrow"

    def is_done(self, number: int) -> bool:
        """Whether a shard was finished; one that a machine lost power over was not."""
        if not self.path(number).is_file():
            return False
        try:
            self.figures(number)
        except pa.ArrowInvalid:  # its end, which says where everything stands, is not there
            return False
        return True

    def write(self, number: int, table: pa.Table, figures: Mapping[str, Any]) -> None:
        """Write one shard whole, with figures about it that can be read without its rows."""
        described = {_FIGURES: json.dumps(figures, sort_keys=True).encode()}
        self.folder.mkdir(parents=True, exist_ok=True)
        beside = self.path(number).with_suffix(f".{os.getpid()}.partial")
        try:
            with pa.ipc.new_file(str(beside), table.schema.with_metadata(described)) as file:
                file.write_table(table.replace_schema_metadata(described))
            beside.replace(self.path(number))
        except BaseException:
            beside.unlink(missing_ok=True)
            raise

    def read(self, number: int) -> pa.Table:
        """The rows of one shard, memory-mapped."""
        with pa.memory_map(str(self.path(number))) as file:
            return pa.ipc.open_file(file).read_all()

    def figures(self, number: int) -> dict[str, Any]:
        """What was written about a shard."""
        with pa.memory_map(str(self.path(number))) as file:
            metadata = pa.ipc.open_file(file).schema.metadata
        return dict(json.loads(metadata[_FIGURES]))

    def count(self) -> int:
        """How many shards are finished, from the first on without a gap."""
        number = 0
        while self.is_done(number):
            number += 1
        return number


class Rows:
    """The rows of all shards, numbered through; a column or a few rows are read at a time."""

    def __init__(self, shards: Shards, count: int) -> None:
        self._shards = shards
        self.tables = count
        lengths = [shards.read(number).num_rows for number in range(count)]
        self.starts: NDArray[np.int64] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def each(self, *columns: str) -> Iterator[tuple[int, pa.Table]]:
        """The number of the first row of every shard, and those columns of it."""
        for number in range(self.tables):
            yield int(self.starts[number]), self._shards.read(number).select(list(columns))

    def table(self, number: int, *columns: str) -> pa.Table:
        """Those columns of one shard, memory-mapped."""
        return self._shards.read(number).select(list(columns))

    def array(self, column: str) -> NDArray[Any]:
        """A whole column of fixed-width values."""
        parts = [table.column(0).to_numpy() for _, table in self.each(column)]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def take(self, rows: NDArray[np.int64], *columns: str) -> pa.Table:
        """Some rows, in the order asked for.

        Args:
            rows: row numbers, any order.
            columns: names of the columns wanted.
        """
        order = np.argsort(rows, kind="stable")
        wanted = rows[order]
        edges = np.searchsorted(wanted, self.starts)
        parts = []
        for number in np.flatnonzero(np.diff(edges)).tolist():
            inside = wanted[edges[number] : edges[number + 1]] - self.starts[number]
            table = self._shards.read(number).select(list(columns))
            parts.append(table.take(pa.array(inside)))
        if not parts:
            return self._empty(columns)
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        return pa.concat_tables(parts).take(pa.array(back))

    def _empty(self, columns: tuple[str, ...]) -> pa.Table:
        if not self.tables:
            return pa.table({name: pa.array([], pa.null()) for name in columns})
        return self._shards.read(0).select(list(columns)).slice(0, 0)

    @cached_property
    def figures(self) -> list[dict[str, Any]]:
        """What was written about every shard."""
        return [self._shards.figures(number) for number in range(self.tables)]
