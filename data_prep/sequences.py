"""Rows, or pieces of split ones, and the packs they go into -> one Arrow file of sequences."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_prep.packing import Packs
from data_prep.shards import Rows

SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("supervised", pa.list_(pa.uint8())),
        ("row_lengths", pa.list_(pa.int32())),
        ("rows", pa.list_(pa.string())),
    ]
)
"""``supervised`` is 0 or 1 in a byte: Arrow's own bools are bits, which training could not read
without unpacking them."""
WRITE_TOKENS = 1 << 22
"""Tokens of the sequences that are in memory at once."""


@dataclass(frozen=True)
class Pieces:
    """What is packed: the pieces of some rows; most rows are one piece."""

    row: NDArray[np.int64]
    """The row each is of, shape ``[pieces]``."""
    start: NDArray[np.int64]
    """Where it begins among the row's tokens."""
    tokens: NDArray[np.int64]


def pieces_of(rows: Rows, chosen: NDArray[np.int64]) -> Pieces:
    """The pieces of rows, row after row; a row that is chosen twice is there twice."""
    counts, tokens = np.empty(len(rows), np.int64), []
    for start, table in rows.each("pieces"):
        column = table.column(0).combine_chunks()
        counts[start : start + len(column)] = column.value_lengths().to_numpy()
        tokens.append(column.flatten().to_numpy())
    flat = np.concatenate([np.empty(0, np.int64), *tokens])
    first = np.cumsum(counts) - counts
    # Of every chosen row its pieces' places in `flat`, one after the other.
    each = counts[chosen]
    inside = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
    places = np.repeat(first[chosen], each) + inside
    ends = np.concatenate([[0], np.cumsum(flat)])
    begins = ends[:-1] - np.repeat(ends[first], counts)
    return Pieces(np.repeat(chosen, each), begins[places], flat[places])


def write_sequences(path: Path, rows: Rows, pieces: Pieces, packs: Packs) -> None:
    """Write packs, gathered from the shards a part at a time.

    Args:
        path: the file to write.
        rows: where the tokens are.
        pieces: of these rows.
        packs: of indices into ``pieces``.
    """
    ends = np.cumsum(packs.tokens)
    parts = np.searchsorted(
        ends, np.arange(WRITE_TOKENS, ends[-1] if len(ends) else 0, WRITE_TOKENS)
    )
    edges = np.unique(np.concatenate([[0], parts + 1, [len(packs)]]))
    with pa.ipc.new_file(str(path), SCHEMA) as file:
        for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            file.write_batch(_gathered(rows, pieces, packs, first, last))


def _gathered(rows: Rows, pieces: Pieces, packs: Packs, first: int, last: int) -> pa.RecordBatch:
    starts = packs.starts[first : last + 1]
    chosen = packs.rows[starts[0] : starts[-1]]
    numbers, at = np.unique(pieces.row[chosen], return_inverse=True)
    table = rows.take(numbers, "where", "ids", "supervised")
    ids, masks = (_one(table[name]) for name in ("ids", "supervised"))
    lengths = pieces.tokens[chosen]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    begins = ids.offsets.to_numpy()[at] + pieces.start[chosen]
    # Every token's place among the tokens that were taken.
    places = pa.array(np.repeat(begins - ends[:-1], lengths) + np.arange(ends[-1]))
    by_pack = pa.array(starts - starts[0], pa.int32())
    tokens = pa.array(ends[starts - starts[0]], pa.int32())
    columns = [
        pa.ListArray.from_arrays(tokens, ids.values.take(places)),
        pa.ListArray.from_arrays(tokens, masks.values.take(places)),
        pa.ListArray.from_arrays(by_pack, pa.array(lengths, pa.int32())),
        pa.ListArray.from_arrays(by_pack, _one(table["where"]).take(pa.array(at))),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _one(column: pa.ChunkedArray) -> pa.Array:
    """A column as one piece of memory, from its beginning."""
    return column.combine_chunks() if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
