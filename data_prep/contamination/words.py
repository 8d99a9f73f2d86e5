"""Texts as arrays of word hashes, with hashes of any run of words in constant time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_prep.contamination import kernels
from data_prep.dedup.kernels import hash_all
from data_prep.dedup.words import Texts

NEWLINE = 10


@dataclass(frozen=True)
class Words:
    """The words of several texts, one after the other."""

    words: NDArray[np.uint64]
    """A hash of each word, shape ``[words]``."""
    numeric: NDArray[np.bool_]
    """Where a word is a number or an operator."""
    texts: NDArray[np.int64]
    """Text ``i`` has the words from ``texts[i]`` to ``texts[i + 1]``."""
    lines: NDArray[np.int64]
    """The same of lines; every text begins one."""
    plain: NDArray[np.uint64]
    """Running hash of the words before each, shape ``[words + 1]``."""
    masked: NDArray[np.uint64]
    """The same with one and the same word in place of everything numeric."""
    powers: NDArray[np.uint64]
    """What takes a running hash out of a later one."""

    def runs(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Hashes of runs of words; equal runs, equal hashes. Shape as ``starts``."""
        return self._runs(self.plain, starts, stops)

    def masked_runs(
        self, starts: NDArray[np.int64], stops: NDArray[np.int64]
    ) -> NDArray[np.uint64]:
        """Hashes of runs of words whatever the figures in them."""
        return self._runs(self.masked, starts, stops)

    def _runs(
        self, running: NDArray[np.uint64], starts: NDArray[np.int64], stops: NDArray[np.int64]
    ) -> NDArray[np.uint64]:
        found = np.empty(len(starts), np.uint64)
        kernels.run_hashes(running, self.powers, starts, stops, found)
        return found


def words_of(texts: Sequence[str]) -> Words:
    """Find the words of texts."""
    normal = Texts.of(texts)
    breaks = np.flatnonzero(normal.bytes == NEWLINE)
    bounds = np.union1d(normal.offsets, breaks)
    words = np.empty(len(normal.bytes) + 1, np.uint64)
    numeric = np.empty(len(normal.bytes) + 1, np.bool_)
    ends = np.empty(len(bounds), np.int64)
    hash_all(normal.bytes, bounds, words, numeric, ends)
    words, numeric = words[: ends[-1]].copy(), numeric[: ends[-1]].copy()
    plain, masked, powers = (np.empty(len(words) + 1, np.uint64) for _ in range(3))
    kernels.running_hashes(words, numeric, plain, masked, powers)
    return Words(
        words=words,
        numeric=numeric,
        texts=ends[np.searchsorted(bounds, normal.offsets)],
        lines=ends,
        plain=plain,
        masked=masked,
        powers=powers,
    )
