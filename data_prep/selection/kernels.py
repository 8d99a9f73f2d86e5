"""The greedy loops over embeddings, compiled by numba.

Both choose one row after the other, by a score that can only fall as more rows are chosen. So a
row whose old score is below the best new one need not be looked at: the result is that of
comparing every row with every chosen one, at a fraction of the products. Products are computed
here one by one, not by BLAS, so that a near tie falls the same way on any number of threads.
"""

import numpy as np
from numba import njit


@njit(fastmath={"reassoc", "contract"})
def cosine(one, other):  # type: ignore[no-untyped-def]
    """Dot product of two unit vectors, summed in the order that suits the registers."""
    total = np.float32(0)
    for k in range(len(one)):
        total += one[k] * other[k]
    return np.float64(total)


@njit(cache=True)
def choose_in_turn(vectors, relevance, share, count, chosen):  # type: ignore[no-untyped-def]
    """Choose, ``count`` times, the row with the highest score; ties go to the earlier row.

    The score is ``share * relevance - (1 - share) * closest``, with the cosine to the closest of
    the chosen rows; before there are any, relevance alone decides.

    Args:
        vectors: unit vectors.
        relevance: of each row.
        share: 1 for relevance alone, 0 for distance alone.
        count: how many rows.
        chosen: written, in the order of choice.
    """
    rows = len(vectors)
    closest = np.full(rows, -1.0)
    seen = np.zeros(rows, np.int64)
    taken = np.zeros(rows, np.bool_)
    score = relevance.copy()
    # Side by side, because a row is compared with one chosen after the other.
    picked = np.empty((count, vectors.shape[1]), vectors.dtype)
    for turn in range(count):
        if turn == 1:
            for row in range(rows):
                score[row] = share * relevance[row] + (1 - share)
        hopeful = -1
        for row in range(rows):
            if not taken[row] and (hopeful < 0 or score[row] > score[hopeful]):
                hopeful = row
        best, highest = -1, -np.inf
        for step in range(rows + 1):
            # The most hopeful row goes first, so that few others are still above it.
            row = hopeful if step == 0 else step - 1
            if taken[row] or score[row] < highest or (score[row] == highest and row > best):
                continue
            if seen[row] < turn:
                for k in range(seen[row], turn):
                    closest[row] = max(closest[row], cosine(vectors[row], picked[k]))
                seen[row] = turn
                score[row] = share * relevance[row] - (1 - share) * closest[row]
            if score[row] > highest or (score[row] == highest and row < best):
                best, highest = row, score[row]
        chosen[turn] = best
        picked[turn] = vectors[best]
        taken[best] = True


@njit(cache=True)
def cosines_to(vectors, other, found):  # type: ignore[no-untyped-def]
    """Write the cosine of every row and one other vector."""
    for row in range(len(vectors)):
        found[row] = cosine(vectors[row], other)
