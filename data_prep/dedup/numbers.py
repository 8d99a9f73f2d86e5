"""The numbers and operators of each text, to tell apart texts that are alike but for these."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_prep.dedup import kernels
from data_prep.dedup.words import Texts


@dataclass(frozen=True)
class NumberSets:
    """For each text the set of its numbers and operators, as hashes."""

    values: NDArray[np.uint64]
    """All sets, one after the other, each ascending."""
    offsets: NDArray[np.int64]
    """Where each begins, shape ``[texts + 1]``."""

    @classmethod
    def of(cls, texts: Texts) -> "NumberSets":
        """Collect the sets, by the rules for words in `data_prep.dedup.kernels`."""
        words = np.empty(texts.longest + 1, np.uint64)
        numeric = np.empty(texts.longest + 1, np.bool_)
        sets = []
        for start, end in zip(texts.offsets[:-1], texts.offsets[1:], strict=True):
            count = kernels.hash_words(texts.bytes, start, end, words, numeric)
            sets.append(np.unique(words[:count][numeric[:count]]))
        values = np.concatenate([np.empty(0, np.uint64), *sets])
        return cls(values, np.cumsum([0, *map(len, sets)], dtype=np.int64))

    @classmethod
    def joined(cls, parts: Iterable["NumberSets"]) -> "NumberSets":
        """The sets of several parts of the texts, one part after the other."""
        parts = list(parts)
        values = np.concatenate([np.empty(0, np.uint64), *(part.values for part in parts)])
        lengths = np.concatenate([[0], *(np.diff(part.offsets) for part in parts)])
        return cls(values, np.cumsum(lengths, dtype=np.int64))

    @classmethod
    def none(cls, count: int) -> "NumberSets":
        """Empty sets: nothing tells texts apart by their numbers."""
        return cls(np.empty(0, np.uint64), np.zeros(count + 1, np.int64))

    def take(self, chosen: NDArray[np.int64]) -> "NumberSets":
        """The sets of some texts."""
        lengths = np.diff(self.offsets)[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[chosen] - offsets[:-1], lengths)
        return NumberSets(self.values[places], offsets)
