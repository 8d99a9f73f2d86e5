"""Rows that are the same, in every turn and tool or in their sequence of words; and opposites."""

import numpy as np
from numpy.typing import NDArray


def first_of_equal(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """For each key the index where it stands first; its own when it is the first.

    Args:
        keys: hashes, shape ``[rows]`` or, of more than 64 bits, ``[rows, words]``.
    """
    columns = keys if keys.ndim == 2 else keys[:, None]
    # Last key of lexsort is the first to sort by; ties keep their order, so the first stays first.
    order = np.lexsort(columns.T[::-1]) if len(keys) else np.empty(0, np.int64)
    ordered = columns[order]
    begins = np.ones(len(keys), bool)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    leaders = order[np.maximum.accumulate(np.where(begins, np.arange(len(keys)), 0))]
    found = np.empty(len(keys), np.int64)
    found[order] = leaders
    return found


def contradictions(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """For each row the first one that says the opposite of it; -1 where none does.

    Args:
        hashes: of everything that each row says, shape ``[rows, 2]``; those of opposites differ in
            the last bit of the second alone.
    """
    about = hashes & np.array([~np.uint64(0), ~np.uint64(1)])
    first = first_of_equal(about)
    way = hashes[:, 1] & np.uint64(1)
    against = np.flatnonzero(way != way[first])  # the first of their group, which they contradict
    leaders, place = np.unique(first[against], return_index=True)
    opponent = np.full(len(hashes), -1, np.int64)
    opponent[leaders] = against[place]
    found = opponent[first]
    found[against] = first[against]
    return found
