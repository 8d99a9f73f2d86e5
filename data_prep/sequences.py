"""Rows and the packs they go into -> one Arrow file of training sequences."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_prep.packing import Pack
from data_prep.shards import Rows

SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("supervised", pa.list_(pa.bool_())),
        ("row_lengths", pa.list_(pa.int32())),
        ("rows", pa.list_(pa.string())),
    ]
)
WRITE_TOKENS = 1 << 22
"""Tokens of the sequences that are in memory at once."""


def write_sequences(
    path: Path, rows: Rows, chosen: NDArray[np.int64], packs: Sequence[Pack]
) -> None:
    """Write packs, gathered from the shards a part at a time.

    Args:
        path: the file to write.
        rows: where the tokens are.
        chosen: numbers of the rows that the packs are of.
        packs: of indices into ``chosen``.
    """
    with pa.ipc.new_file(str(path), SCHEMA) as file:
        part: list[Pack] = []
        tokens = 0
        for pack in packs:
            part.append(pack)
            tokens += pack.tokens
            if tokens >= WRITE_TOKENS:
                file.write_batch(_gathered(rows, chosen, part))
                part, tokens = [], 0
        if part:
            file.write_batch(_gathered(rows, chosen, part))


def _gathered(rows: Rows, chosen: NDArray[np.int64], packs: Sequence[Pack]) -> pa.RecordBatch:
    wanted = chosen[np.concatenate([np.array(pack.rows, np.int64) for pack in packs])]
    table = rows.take(wanted, "where", "ids", "supervised").combine_chunks()
    lengths = pc.list_value_length(table["ids"]).combine_chunks()
    starts = _offsets([len(pack.rows) for pack in packs])
    ends = np.concatenate([[0], np.cumsum(lengths.to_numpy(zero_copy_only=False))])
    tokens = pa.array(ends[starts.to_numpy()], pa.int32())
    columns = [
        pa.ListArray.from_arrays(tokens, _flat(table["ids"])),
        pa.ListArray.from_arrays(tokens, _flat(table["supervised"]).cast(pa.bool_())),
        pa.ListArray.from_arrays(starts, _one(lengths)),
        pa.ListArray.from_arrays(starts, _one(table["where"])),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _offsets(lengths: Sequence[int]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return _one(column).flatten()


def _one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column as one piece."""
    if isinstance(column, pa.ChunkedArray):
        return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    return column
