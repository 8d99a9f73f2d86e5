"""Rows that are the same: in every turn and tool, or in their sequence of words."""

import numpy as np
from numpy.typing import NDArray

from data_prep.dedup import kernels
from data_prep.dedup.words import Texts


def first_of_equal(keys: NDArray[np.generic]) -> NDArray[np.int64]:
    """For each key the index where it stands first; its own when it is the first."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    found: NDArray[np.int64] = first[inverse]
    return found


def word_sequences(texts: Texts) -> NDArray[np.uint64]:
    """A hash of each text's words in their order; texts without words get hashes of their own."""
    hashes = np.empty(len(texts), np.uint64)
    kernels.hash_sequences(texts.bytes, texts.offsets, texts.longest, hashes)
    return hashes
