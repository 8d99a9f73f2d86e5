"""Whether an instruction is new: ROUGE-L against everything so far."""

import re
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from data_prep.filters.words import HAN_AND_KANA
from data_prep.generate import novelty_kernels as kernels

_WORD = re.compile(rf"[{HAN_AND_KANA}]|[^\W_{HAN_AND_KANA}]+")


@dataclass(frozen=True, slots=True)
class Nearest:
    """The text most like another."""

    text: int
    """Its number, in the order of adding."""
    score: float
    """ROUGE-L, the harmonic mean of both texts' share of words in their longest common
    subsequence."""


def words_of(text: str) -> list[str]:
    """Words as ROUGE counts them: lower case, letters and figures, each Chinese character alone."""
    return _WORD.findall(text.lower())


class NoveltyIndex:
    """Texts, and which of them an instruction is most like.

    A text that reaches the threshold shares so many words with the query that it has one of the
    query's rarest few; only texts that have are compared. The verdicts are those of comparing with
    every text.
    """

    def __init__(self, threshold: float = 0.7) -> None:
        """Begin without texts.

        Args:
            threshold: the least ROUGE-L of texts that count as alike, above 0.
        """
        if not 0 < threshold <= 1:
            raise ValueError(f"the threshold of novelty is above 0 and at most 1, not {threshold}")
        self.threshold = threshold
        self._numbers: dict[str, int] = {}
        self._count = 0
        self._links_used = 0
        self._words: NDArray[np.int32] = np.empty(1024, np.int32)
        self._offsets: NDArray[np.int64] = np.zeros(129, np.int64)
        self._heads = np.full(1024, -1, np.int64)
        self._frequencies = np.zeros(1024, np.int64)
        self._slots = np.full(1024, -1, np.int32)
        self._links: NDArray[np.int64] = np.empty(1024, np.int64)
        self._link_texts: NDArray[np.int64] = np.empty(1024, np.int64)
        self._seen: NDArray[np.int64] = np.zeros(129, np.int64)

    def __len__(self) -> int:
        return self._count

    def add(self, text: str) -> None:
        """Add a text to those that others are compared with."""
        found = [self._numbers.setdefault(word, len(self._numbers)) for word in words_of(text)]
        words = np.array(found, np.int32)
        start = int(self._offsets[self._count])
        self._grow(start + len(words))
        self._words[start : start + len(words)] = words
        self._offsets[self._count + 1] = start + len(words)
        self._links_used = kernels.add(
            self._count,
            words,
            self._heads,
            self._links,
            self._link_texts,
            self._links_used,
            self._frequencies,
        )
        self._count += 1

    def nearest(self, text: str) -> Nearest | None:
        """The text most like this one, the first of equal ones.

        None when none reaches the threshold: this one is new.
        """
        query = np.array([self._numbers.get(word, -1) for word in words_of(text)], np.int32)
        if not len(query) or not self._count:
            return None
        found, score = kernels.nearest(
            query,
            self._rarest(query),
            self._words,
            self._offsets,
            self._heads,
            self._links,
            self._link_texts,
            self._slots,
            self._seen,
            self.threshold,
        )
        return None if found < 0 else Nearest(int(found), float(score))

    def _rarest(self, query: NDArray[np.int32]) -> NDArray[np.int32]:
        """Words of the query of which any text that reaches the threshold has at least one.

        Such a text shares at least ``threshold / (2 - threshold)`` of the query's words: with
        2 * common / (query + text) at or above the threshold, and text at or above common.
        """
        share = self.threshold / (2 - self.threshold)
        least = max(1, int(np.ceil(len(query) * share - 1e-9)))
        known = np.where(query < 0, 0, self._frequencies[query])
        rarest = query[np.argsort(known, kind="stable")[: len(query) - least + 1]]
        return np.unique(rarest[rarest >= 0])

    def _grow(self, words: int) -> None:
        """Make room for one more text that ends at so many words."""
        self._words = _room(self._words, words, 0)
        self._links = _room(self._links, words, 0)
        self._link_texts = _room(self._link_texts, words, 0)
        self._offsets = _room(self._offsets, self._count + 2, 0)
        if len(self._seen) < self._count + 2:  # its last place counts the queries
            queries = self._seen[-1]
            self._seen = np.zeros(2 * (self._count + 2), np.int64)
            self._seen[-1] = queries
        for name, empty in (("_heads", -1), ("_frequencies", 0), ("_slots", -1)):
            setattr(self, name, _room(getattr(self, name), len(self._numbers), empty))


Number = TypeVar("Number", bound=np.signedinteger[Any])


def _room(array: NDArray[Number], needed: int, empty: int) -> NDArray[Number]:
    """The array, at least so long; what is new holds ``empty``."""
    if needed <= len(array):
        return array
    longer = np.full(2 * needed, empty, array.dtype)
    longer[: len(array)] = array
    return longer
