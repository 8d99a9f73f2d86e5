"""Preferences that go the other way: alike in their words, and yet no duplicates.

Two pairs of answers have the same words whichever answer is the better one. So before one pair is
removed for another, their answers are compared side by side and crosswise:

    as they stand   better with better, worse with worse
    crosswise       better with worse, worse with better

Pairs that are at least as alike crosswise go the other way, or cannot be told from pairs that do.
"""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from data_prep.dedup import kernels
from data_prep.dedup.words import Texts

ReadSides = Callable[[NDArray[np.int64]], Iterable[tuple[str, str]]]
"""Gives of some rows the better answer and the worse one."""
Opposed = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]
"""Says of rows on the left which go another way than those on the right."""
RUN = 2
"""Words in one element of the sets: answers of the same words in another order are two answers."""
EDGES = 1 << 13
"""Pairs of rows whose answers are in memory at once."""
S32 = np.uint64(32)


def sides_exchanged(
    read: ReadSides, left: NDArray[np.int64], right: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Say which pairs of answers are at least as alike crosswise as they are as they stand.

    Alike is the Jaccard similarity of the sets of two neighbouring words, summed over both sides;
    that of two answers without words is 1. Pairs that share nothing either way are not exchanged.

    Args:
        read: gives the answers of rows.
        left: numbers of rows.
        right: the row that each is compared with.

    Returns:
        Shape ``[pairs]``.
    """
    found = np.zeros(len(left), np.bool_)
    # Of many rows that are alike each is compared with a few first ones: so it is read once.
    order = np.argsort(right, kind="stable")
    for start in range(0, len(left), EDGES):
        part = order[start : start + EDGES]
        rows, places = np.unique(np.stack([left[part], right[part]]), return_inverse=True)
        texts = Texts.of(side for sides in read(rows) for side in sides)
        found[part] = _exchanged(texts, *(2 * places.reshape(2, -1).astype(np.uint64)))
    return found


def _exchanged(
    texts: Texts, left: NDArray[np.uint64], right: NDArray[np.uint64]
) -> NDArray[np.bool_]:
    """The same of texts in memory: each better answer by its place, the worse one behind it."""
    every = np.arange(len(texts), dtype=np.uint64)
    silent = _similarity(texts, every, every) == 0

    def alike(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.float64]:
        return np.where(silent[one] & silent[other], 1.0, _similarity(texts, one, other))

    worse, others = left + np.uint64(1), right + np.uint64(1)
    straight = alike(left, right) + alike(worse, others)
    crosswise = alike(left, others) + alike(worse, right)
    found: NDArray[np.bool_] = (crosswise > 0) & (crosswise >= straight)
    return found


def _similarity(
    texts: Texts, one: NDArray[np.uint64], other: NDArray[np.uint64]
) -> NDArray[np.float64]:
    similarity = np.empty(len(one))
    text = texts.bytes, texts.offsets, texts.longest
    kernels.count_similarity(*text, RUN, one << S32 | other, similarity)
    return similarity
