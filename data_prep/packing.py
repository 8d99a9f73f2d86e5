"""Rows -> packs: several rows share one training sequence, so that no token is padding."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from data_prep.errors import DataError

BITS = 64
"""Rooms are kept as bits of 64-bit words: the next larger room is a shift and an AND away."""


class RowTooLong(DataError):
    """A row has more tokens than a pack holds."""


@dataclass(frozen=True, slots=True, eq=False)
class Packs:
    """Rows that share sequences, as arrays.

    rows     4 | 1 0 | 2 5 3      row indices, pack after pack
    starts   0   1     3      6   where each pack begins in ``rows``, and the end
    """

    rows: NDArray[np.int64]
    """Row indices in the order they were placed, shape ``[rows]``."""
    starts: NDArray[np.int64]
    """Shape ``[packs + 1]``."""
    tokens: NDArray[np.int64]
    """Tokens in each pack, shape ``[packs]``."""

    def __len__(self) -> int:
        """The number of packs."""
        return len(self.tokens)

    def __getitem__(self, index: int) -> NDArray[np.int64]:
        """The rows of one pack."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.rows[self.starts[index] : self.starts[index + 1]]

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        """The rows of every pack, in the order the packs were opened."""
        return (self[index] for index in range(len(self)))


def pack(lengths: Sequence[int] | NDArray[np.integer], capacity: int) -> Packs:
    """Fit rows into as few packs of ``capacity`` tokens as best-fit-decreasing finds.

    Sorting by length makes the result independent of input order and of the number of
    workers; ties break on the row's index. Time is linear in rows, memory five times ``lengths``.

    Args:
        lengths: tokens in each row, shape ``[rows]``, each in ``1..capacity``.
        capacity: tokens in one pack (the training context length).

    Returns:
        Packs in the order they were opened. Every row index appears exactly once.

    Raises:
        RowTooLong: a row has more than ``capacity`` tokens. Rows are never cut here;
            cutting is `overlong`'s decision and is counted in the ledger.

    Source:
        Best-fit decreasing, Johnson (1973); for language models, Ding et al. (2024),
        arXiv 2404.10830.
    """
    sizes = np.asarray(lengths, np.int64)
    wrong = np.flatnonzero((sizes < 1) | (sizes > capacity))
    if len(wrong):
        row = int(wrong[0])
        raise RowTooLong(f"row {row} has {sizes[row]} tokens; a pack holds 1 to {capacity}")
    return Packs(*_best_fit_decreasing(sizes, capacity))


def alone(lengths: Sequence[int] | NDArray[np.integer]) -> Packs:
    """Every row in a pack of its own: what training reads when nothing is packed."""
    sizes = np.array(lengths, np.int64)
    return Packs(np.arange(len(sizes)), np.arange(len(sizes) + 1), sizes)


def efficiency(packs: Packs, capacity: int) -> float:
    """The share of the packs' room that holds tokens, 0..1."""
    return int(packs.tokens.sum()) / (capacity * len(packs)) if len(packs) else 0.0


def fewest_packs(lengths: Sequence[int] | NDArray[np.integer], capacity: int) -> int:
    """A number of packs that no packing can go below.

    Rows longer than half a pack never share one, and what is left of theirs takes only rows that
    fit there: for every k, rows longer than ``capacity - k`` are alone among rows of k or more, and
    the middle rows need room of their own. The largest such demand counts; k = 0 is the sum of
    tokens over the capacity.

    Source:
        The bound L2 of Martello and Toth (1990), Knapsack Problems, chapter 8.
    """
    counts = np.bincount(np.asarray(lengths, np.int64), minlength=capacity + 1)
    tokens = counts * np.arange(capacity + 1)
    many, sums = (np.concatenate(([0], np.cumsum(each))) for each in (counts, tokens))
    k = np.arange(capacity // 2 + 1)
    large = many[-1] - many[capacity - k + 1]
    halves = many[capacity - k + 1] - many[capacity // 2 + 1]
    middle = sums[capacity - k + 1] - sums[k]
    extra = -(-(middle - halves * capacity) // capacity)
    return int((large + halves + np.maximum(0, extra)).max())


@njit(cache=True)
def _best_fit_decreasing(lengths, capacity):  # type: ignore[no-untyped-def]
    """Place the rows, longest first, each where the least room is left: ``Packs``' arrays."""
    order = _longest_first(lengths, capacity)
    count = len(order)
    pack_of, below = np.empty(count, np.int64), np.empty(count, np.int64)
    tokens = np.empty(count, np.int64)
    # Packs with equal room are a stack: `newest[room]`, then `below[pack]`, and so on.
    newest = np.full(capacity + 1, -1, np.int64)
    words = capacity // BITS + 1
    rooms = np.zeros(words, np.uint64)
    filled = np.zeros(words // BITS + 1, np.uint64)
    packs = 0
    for place in range(count):
        length = lengths[order[place]]
        room = _next_room(rooms, filled, length)
        if room < 0:
            room, chosen = capacity, packs
            tokens[packs] = 0
            packs += 1
        else:
            chosen = newest[room]
            newest[room] = below[chosen]
            if below[chosen] < 0:
                word = room // BITS
                rooms[word] ^= np.uint64(1) << np.uint64(room % BITS)
                if not rooms[word]:
                    filled[word // BITS] ^= np.uint64(1) << np.uint64(word % BITS)
        pack_of[place] = chosen
        tokens[chosen] += length
        left = room - length
        if left:
            below[chosen], newest[left] = newest[left], chosen
            word = left // BITS
            rooms[word] |= np.uint64(1) << np.uint64(left % BITS)
            filled[word // BITS] |= np.uint64(1) << np.uint64(word % BITS)
    starts = np.zeros(packs + 1, np.int64)
    for place in range(count):
        starts[pack_of[place] + 1] += 1
    starts[:] = np.cumsum(starts)
    rows, at = below, starts[:-1].copy()  # the stacks are done with
    for place in range(count):
        rows[at[pack_of[place]]] = order[place]
        at[pack_of[place]] += 1
    return rows, starts, tokens[:packs].copy()


@njit(cache=True)
def _longest_first(lengths, capacity):  # type: ignore[no-untyped-def]
    """Row indices by falling length, equal ones in order: a counting sort."""
    at = np.zeros(capacity + 2, np.int64)
    for length in lengths:
        at[capacity - length + 1] += 1
    at[:] = np.cumsum(at)
    order = np.empty(len(lengths), np.int64)
    for row in range(len(lengths)):
        place = capacity - lengths[row]
        order[at[place]] = row
        at[place] += 1
    return order


@njit(cache=True)
def _next_room(rooms, filled, length):  # type: ignore[no-untyped-def]
    """The smallest room of at least ``length`` that some pack has, or -1."""
    word = length // BITS
    found = rooms[word] >> np.uint64(length % BITS)
    if found:
        return length + _lowest_bit(found)
    # None in this word: `filled` says which later words have any.
    word += 1
    group = word // BITS
    if group >= len(filled):
        return -1
    found = filled[group] >> np.uint64(word % BITS) << np.uint64(word % BITS)
    while not found:
        group += 1
        if group == len(filled):
            return -1
        found = filled[group]
    word = group * BITS + _lowest_bit(found)
    return word * BITS + _lowest_bit(rooms[word])


@njit(inline="always")
def _lowest_bit(word):  # type: ignore[no-untyped-def]
    place = 0
    for step in (32, 16, 8, 4, 2, 1):
        if not word & ((np.uint64(1) << np.uint64(step)) - np.uint64(1)):
            word >>= np.uint64(step)
            place += step
    return place
