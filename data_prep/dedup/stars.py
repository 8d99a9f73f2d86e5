"""Which of a set of near-duplicates stay: stars around kept rows, never chains.

If a is like b and b like c, a and c may have little in common; removing both because they hang
together would lose a row that nothing left in the data resembles. So a row is removed only when a
row that stays is like it, and that row is its witness.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Stars:
    """Who is removed, and which row that stays vouches for it."""

    removed: NDArray[np.int64]
    witness: NDArray[np.int64]
    """Of each removed row, the most similar row that stays."""
    similarity: NDArray[np.float64]


def stars(
    count: int,
    left: NDArray[np.integer],
    right: NDArray[np.integer],
    similarity: NDArray[np.float64],
) -> Stars:
    """Keep rows so that no two kept ones are alike and every other is like a kept one.

    The row with most others like it is kept first: the original of several edited copies is like
    all of them, though they may not be like each other. Ties go to the earlier row.

    Args:
        count: rows there are.
        left: one row of each pair that is alike, shape ``[pairs]``.
        right: the other row.
        similarity: of each pair.

    Returns:
        The removed rows, in order.
    """
    ends = np.concatenate([left, right]).astype(np.int64)
    others = np.concatenate([right, left]).astype(np.int64)
    scores = np.concatenate([similarity, similarity])
    order = np.lexsort((others, -scores, ends))
    ends, others, scores = ends[order], others[order], scores[order]
    starts = np.searchsorted(ends, np.arange(count + 1))
    degree = np.diff(starts)
    covered = np.zeros(count, bool)
    kept = np.ones(count, bool)
    touched = np.flatnonzero(degree)
    for row in touched[np.lexsort((touched, -degree[touched]))]:
        if not covered[row]:
            neighbours = others[starts[row] : starts[row + 1]]
            kept[neighbours] = False
            covered[neighbours] = True
            covered[row] = True
    # The first kept neighbour in each row's list is its most similar one.
    vouching = ~kept[ends] & kept[others]
    removed, first = np.unique(ends[vouching], return_index=True)
    return Stars(removed, others[vouching][first], scores[vouching][first])
