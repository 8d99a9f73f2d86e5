"""How much each row is wanted for itself, whatever else is chosen: numbers from -1 to 1."""

import numpy as np
from numpy.typing import NDArray

from data_prep.selection import kernels


def centrality(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """The cosine of each row and the mean of all: how typical it is."""
    # A sum, since there may be no rows, and the mean's length does not matter.
    mean = vectors.sum(axis=0, dtype=np.float64)
    length = np.linalg.norm(mean)
    found = np.empty(len(vectors))
    kernels.cosines_to(vectors, (mean / (length or 1)).astype(np.float32), found)
    return found


def length_rank(tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of rows that have fewer tokens. Unlike the count, no single long row skews it."""
    found: NDArray[np.float64] = np.searchsorted(np.sort(tokens), tokens) / max(1, len(tokens) - 1)
    return found
