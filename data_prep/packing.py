"""Rows -> packs: several rows share one training sequence, so that no token is padding."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from data_prep.errors import DataError


class RowTooLong(DataError):
    """A row has more tokens than a pack holds."""


@dataclass(slots=True)
class Pack:
    """Rows that share one sequence."""

    rows: list[int] = field(default_factory=list)
    """Indices of the rows, in the order they were placed."""
    tokens: int = 0


def pack(lengths: Sequence[int], capacity: int) -> list[Pack]:
    """Fit rows into as few packs of ``capacity`` tokens as best-fit-decreasing finds.

    Sorting by length makes the result independent of input order and of the number of
    workers; ties break on the row's index.

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
    packs: list[Pack] = []
    open_packs: list[list[Pack]] = [[] for _ in range(capacity + 1)]
    # Bit r is set while some pack has r tokens of room: the best fit is one shift and one AND away.
    rooms = 0
    for row in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        length = lengths[row]
        if not 1 <= length <= capacity:
            raise RowTooLong(f"row {row} has {length} tokens; a pack holds 1 to {capacity}")
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            chosen = open_packs[room].pop()
            if not open_packs[room]:
                rooms &= ~(1 << room)
        else:
            room = capacity
            chosen = Pack()
            packs.append(chosen)
        chosen.rows.append(row)
        chosen.tokens += length
        left = room - length
        if left:
            open_packs[left].append(chosen)
            rooms |= 1 << left
    return packs


def efficiency(packs: Sequence[Pack], capacity: int) -> float:
    """The share of the packs' room that holds tokens, 0..1."""
    return sum(pack.tokens for pack in packs) / (capacity * len(packs)) if packs else 0.0
