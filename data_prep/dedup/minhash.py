"""Near-duplicates: MinHash-LSH finds pairs of texts that may be alike, counting verifies them.

A sketch of each text's words gives candidates; the Jaccard similarity of a candidate pair is then
counted on the words themselves, so a sketch can only miss a pair, never invent one. How likely a
pair of similarity s is found is the S-curve ``1 - (1 - s^rows)^bands``: with 40 bands of 5 rows
0.96 at s = 0.6, 0.99 at 0.65, 0.999 at 0.7 and, for two texts that have nothing but common
words between them, 0.00001 at 0.05.

Words that many texts have ("the", "of") say nothing about two texts being copies, yet would make
candidates of most pairs; they are left out of the sketch, not of the count.

Source:
    Broder (1997), On the resemblance and containment of documents.
    Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, chapter 3.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from data_prep.dedup import kernels
from data_prep.dedup.words import Texts

COMMON = 0.04
"""A word that more than this share of the texts have is left out of sketches."""
DOCUMENTS = 5000
"""Texts that the share is measured on, evenly spread."""


class MinHashConfig(BaseModel):
    """When two rows are near-duplicates, and how hard they are looked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float = Field(default=0.6, gt=0, le=1)
    """Jaccard similarity of the two sets of words from which rows are near-duplicates."""
    ngram: int = Field(default=1, ge=1, le=20)
    """Words in one element of the sets. On instruction rows, single words separate edited copies
    from look-alikes; runs of words miss most edits."""
    bands: int = Field(default=40, ge=1, le=1000)
    """Chances a pair has to become a candidate."""
    rows: int = Field(default=5, ge=1, le=100)
    """Hash values that must agree for one chance."""
    on: Literal["prompt", "response", "both"] = "both"
    """The text that is compared."""
    numbers: Literal["distinct", "merge"] = "distinct"
    """Rows of which each has a number that the other lacks: kept apart, or compared like others."""


@dataclass(frozen=True)
class Edges:
    """Verified pairs of near-duplicates."""

    left: NDArray[np.int32]
    """Index of the earlier text."""
    right: NDArray[np.int32]
    similarity: NDArray[np.float64]
    """Jaccard similarity, counted."""


def near_duplicates(texts: Texts, config: MinHashConfig, chosen: NDArray[np.int64]) -> Edges:
    """Find every pair of texts that are alike, up to what the S-curve misses.

    The result depends on the texts, their order and the configuration alone.

    Args:
        texts: normalised texts.
        config: what counts as alike.
        chosen: indices of the texts to compare, ascending.

    Returns:
        Pairs of indices into ``texts``.
    """
    keys = np.full((config.bands, len(texts)), kernels.EMPTY)
    common = _common_words(texts, config.ngram)
    kernels.sketch(
        texts.bytes, texts.offsets, texts.longest, chosen, config.ngram, config.rows, common, keys
    )
    pairs = _candidates(keys)
    similarity = np.empty(len(pairs))
    kernels.count_similarity(
        texts.bytes, texts.offsets, texts.longest, config.ngram, pairs, similarity
    )
    alike = similarity >= config.threshold
    pairs, similarity = pairs[alike], similarity[alike]
    if config.numbers == "distinct":
        differ = np.zeros(len(pairs), np.bool_)
        kernels.numbers_differ(texts.bytes, texts.offsets, texts.longest, pairs, differ)
        pairs, similarity = pairs[~differ], similarity[~differ]
    left, right = pairs >> np.uint64(32), pairs & np.uint64(0xFFFFFFFF)
    return Edges(left.astype(np.int32), right.astype(np.int32), similarity)


def _common_words(texts: Texts, ngram: int) -> NDArray[np.uint64]:
    """A table of the words that are left out of sketches; zero where nothing stands."""
    count = len(texts)
    chosen = np.unique(np.linspace(0, count - 1, min(count, DOCUMENTS)).astype(np.int64))
    lengths = texts.offsets[chosen + 1] - texts.offsets[chosen]
    found = np.empty(int(lengths.sum()) + len(chosen), np.uint64)
    total = kernels.unique_words(texts.bytes, texts.offsets, texts.longest, ngram, chosen, found)
    words, counts = np.unique(found[:total], return_counts=True)
    frequent = words[counts > max(2, COMMON * len(chosen))]
    table = np.zeros(_power_of_two(4 * len(frequent) + 16), np.uint64)
    kernels.fill(table, frequent)
    return table


def _power_of_two(least: int) -> int:
    return 1 << max(4, (least - 1).bit_length())


def _candidates(keys: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Pairs of texts with a band in common, ``earlier << 32 | later``, each once, in order."""
    pairs = np.empty(0, np.uint64)
    for band in keys:
        order = np.argsort(band, kind="stable").astype(np.int32)
        found = np.empty(max(16, len(order) // 4), np.uint64)
        needed = kernels.pairs_in_groups(band, order, found)
        if needed > len(found):
            found = np.empty(needed, np.uint64)
            kernels.pairs_in_groups(band, order, found)
        pairs = np.union1d(pairs, found[:needed])
    return pairs
