"""Rows, or pieces of split ones, and the packs they go into -> one Arrow file of sequences."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_prep.packing import Packs
from data_prep.shards import Rows
from data_prep.units import BAD, GOOD

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


ROW_KINDS = pa.field("row_kinds", pa.list_(pa.int8()))
"""The kind of every row of a sequence, as `data_prep.units` numbers them; only where there are
several."""


@dataclass(frozen=True)
class Spans:
    """Parts of rows."""

    row: NDArray[np.int64]
    """The row each is of, shape ``[spans]``."""
    start: NDArray[np.int64]
    """Where it begins among the row's tokens."""
    tokens: NDArray[np.int64]


@dataclass(frozen=True)
class Pieces:
    """What is packed: the pieces of some rows; most rows are one piece."""

    row: NDArray[np.int64]
    """The row each is of, shape ``[pieces]``."""
    start: NDArray[np.int64]
    """Where it begins among the row's tokens."""
    tokens: NDArray[np.int64]
    per_unit: int = 1
    """Neighbouring pieces that no pack parts."""
    kinds: NDArray[np.int8] | None = None
    """Of each piece, where there are several kinds."""
    tail: Spans | None = None
    """Of each piece the tokens that it ends with, which are another row's; they count among its
    own. None where no piece has any."""

    @property
    def unit_tokens(self) -> NDArray[np.int64]:
        """Tokens of each unit: what is packed."""
        units = self.tokens.reshape(-1, self.per_unit)
        return np.asarray(units.sum(axis=1), np.int64)


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


def pairs_of(rows: Rows, chosen: NDArray[np.int64]) -> Pieces:
    """Both sides of pairs, the chosen one first."""
    sides = pieces_of(rows, chosen)
    kinds = np.tile(np.array([GOOD, BAD], np.int8), len(chosen))
    return replace(sides, per_unit=2, kinds=kinds)


def write_sequences(path: Path, rows: Rows, pieces: Pieces, packs: Packs) -> None:
    """Write packs, gathered from the shards a part at a time.

    Args:
        path: the file to write.
        rows: where the tokens are.
        pieces: of these rows.
        packs: of indices into the units of ``pieces``.
    """
    schema = SCHEMA if pieces.kinds is None else SCHEMA.append(ROW_KINDS)
    packs = _of_pieces(packs, pieces.per_unit)
    ends = np.cumsum(packs.tokens)
    parts = np.searchsorted(
        ends, np.arange(WRITE_TOKENS, ends[-1] if len(ends) else 0, WRITE_TOKENS)
    )
    edges = np.unique(np.concatenate([[0], parts + 1, [len(packs)]]))
    with pa.ipc.new_file(str(path), schema) as file:
        for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            file.write_batch(_gathered(rows, pieces, packs, first, last))


def _of_pieces(packs: Packs, per_unit: int) -> Packs:
    """Packs of units as packs of their pieces."""
    if per_unit == 1:
        return packs
    inside = np.arange(per_unit)
    members = (packs.rows[:, None] * per_unit + inside).ravel()
    return Packs(members, packs.starts * per_unit, packs.tokens)


def _gathered(rows: Rows, pieces: Pieces, packs: Packs, first: int, last: int) -> pa.RecordBatch:
    """Some packs, copied piece by piece: a piece of a long row must not bring the row with it."""
    starts = packs.starts[first : last + 1]
    chosen = packs.rows[starts[0] : starts[-1]]
    spans = _spans(pieces, chosen)
    begins = np.cumsum(spans.tokens) - spans.tokens
    total = int(spans.tokens.sum())
    ids, masks = np.empty(total, np.int32), np.empty(total, np.uint8)
    owners = np.searchsorted(rows.starts, spans.row, side="right") - 1
    order = np.argsort(owners, kind="stable")
    found = []
    for mine in np.split(order, np.flatnonzero(np.diff(owners[order])) + 1):
        number = int(owners[mine[0]])
        table = rows.table(number, "where", "ids", "supervised")
        inside = spans.row[mine] - rows.starts[number]
        places = _ranges(begins[mine], spans.tokens[mine])
        for name, into in (("ids", ids), ("supervised", masks)):
            column = _one(table[name])
            taken = column.offsets.to_numpy()[inside] + spans.start[mine]
            into[places] = column.values.to_numpy()[_ranges(taken, spans.tokens[mine])]
        found.append(_one(table["where"]).take(pa.array(inside)))
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    named = back[:: len(back) // len(chosen)]  # a piece is where its first span is
    lengths = pieces.tokens[chosen]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    by_pack = pa.array(starts - starts[0], pa.int32())
    tokens = pa.array(ends[starts - starts[0]], pa.int32())
    columns = [
        pa.ListArray.from_arrays(tokens, pa.array(ids)),
        pa.ListArray.from_arrays(tokens, pa.array(masks)),
        pa.ListArray.from_arrays(by_pack, pa.array(lengths, pa.int32())),
        pa.ListArray.from_arrays(by_pack, pa.concat_arrays(found).take(pa.array(named))),
    ]
    if pieces.kinds is None:
        return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
    columns.append(pa.ListArray.from_arrays(by_pack, pa.array(pieces.kinds[chosen], pa.int8())))
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA.append(ROW_KINDS))


def _spans(pieces: Pieces, chosen: NDArray[np.int64]) -> Spans:
    """Where the tokens of some pieces are, in order."""
    row, start, tokens = (each[chosen] for each in (pieces.row, pieces.start, pieces.tokens))
    if pieces.tail is None:
        return Spans(row, start, tokens)
    tail = (pieces.tail.row[chosen], pieces.tail.start[chosen], pieces.tail.tokens[chosen])
    both = zip((row, start, tokens - tail[2]), tail, strict=True)
    return Spans(*(np.stack(each, axis=1).ravel() for each in both))


def _ranges(begins: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The whole numbers from every beginning on, as many as its length says, in one array."""
    ends = np.cumsum(lengths)
    ranges: NDArray[np.int64] = np.repeat(begins - ends + lengths, lengths) + np.arange(ends[-1])
    return ranges


def _one(column: pa.ChunkedArray) -> pa.Array:
    """A column as one piece of memory, from its beginning."""
    return column.combine_chunks() if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
