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
    """Some packs, copied piece by piece: a piece of a long row must not bring the row with it."""
    starts = packs.starts[first : last + 1]
    chosen = packs.rows[starts[0] : starts[-1]]
    lengths = pieces.tokens[chosen]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    ids, masks = np.empty(ends[-1], np.int32), np.empty(ends[-1], np.uint8)
    owners = np.searchsorted(rows.starts, pieces.row[chosen], side="right") - 1
    order = np.argsort(owners, kind="stable")
    found = []
    for mine in np.split(order, np.flatnonzero(np.diff(owners[order])) + 1):
        number = int(owners[mine[0]])
        table = rows.table(number, "where", "ids", "supervised")
        inside = pieces.row[chosen[mine]] - rows.starts[number]
        places = _ranges(ends[mine], lengths[mine])
        for name, into in (("ids", ids), ("supervised", masks)):
            column = _one(table[name])
            begins = column.offsets.to_numpy()[inside] + pieces.start[chosen[mine]]
            into[places] = column.values.to_numpy()[_ranges(begins, lengths[mine])]
        found.append(_one(table["where"]).take(pa.array(inside)))
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    by_pack = pa.array(starts - starts[0], pa.int32())
    tokens = pa.array(ends[starts - starts[0]], pa.int32())
    columns = [
        pa.ListArray.from_arrays(tokens, pa.array(ids)),
        pa.ListArray.from_arrays(tokens, pa.array(masks)),
        pa.ListArray.from_arrays(by_pack, pa.array(lengths, pa.int32())),
        pa.ListArray.from_arrays(by_pack, pa.concat_arrays(found).take(pa.array(back))),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _ranges(begins: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The whole numbers from every beginning on, as many as its length says, in one array."""
    ends = np.cumsum(lengths)
    ranges: NDArray[np.int64] = np.repeat(begins - ends + lengths, lengths) + np.arange(ends[-1])
    return ranges


def _one(column: pa.ChunkedArray) -> pa.Array:
    """A column as one piece of memory, from its beginning."""
    return column.combine_chunks() if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
