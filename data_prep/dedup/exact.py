"""Rows that are the same: in every turn and tool, or in their sequence of words."""

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
