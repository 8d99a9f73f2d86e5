"""Near-duplicates: MinHash-LSH finds pairs of texts that may be alike, counting verifies them.

A sketch of each text's words gives candidates; the Jaccard similarity of a candidate pair is then
counted on the words themselves, so a sketch can only miss a pair, never invent one. How likely a
pair is found is the S-curve ``1 - (1 - s^rows)^bands``, s being the similarity of what is sketched:
with 40 bands of 5 rows 0.96 at s = 0.6, 0.99 at 0.65, 0.999 at 0.7, and 0.00001 at 0.05.

Words that many texts have ("the", "of") say nothing about two texts being copies, yet would make
candidates of most pairs; they are left out of the sketch, not of the count. So rows of one template
are candidates only when they are alike beside it, however alike they are with it; unless fewer
than 8 words are left, when all of them are sketched.

Source:
    Broder (1997), On the resemblance and containment of documents.
    Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, chapter 3.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from data_prep.dedup import kernels
from data_prep.dedup.words import TextSource

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
    min_words: int = Field(default=12, ge=0, le=1000)
    """Texts with fewer different words (or runs of them) are duplicates only when their words are
    the same in their order: "from smallest to largest" and "from largest to smallest" are one set
    of words, and two requests."""
    on: Literal["prompt", "response", "both"] = "both"
    """The text that is compared."""
    numbers: Literal["distinct", "merge"] = "distinct"
    """Rows of which each has a number or operator that the other lacks, and rows that are the same
    but for their figures: kept apart, or compared like others. 1,000 and 1000 are two numbers."""


Verified = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
"""Left, right and similarity, as in `Edges`."""
MERGE = 1 << 21
"""Pairs that wait before those that several bands found are joined."""
S32, LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
PAIRS = 1 << 20
"""Candidates whose texts are in memory at once."""


@dataclass(frozen=True)
class Edges:
    """Verified pairs of near-duplicates."""

    left: NDArray[np.int64]
    """Number of the earlier text."""
    right: NDArray[np.int64]
    similarity: NDArray[np.float64]
    """Jaccard similarity, counted."""

    def only(self, chosen: NDArray[np.bool_]) -> "Edges":
        """Some of them."""
        return Edges(self.left[chosen], self.right[chosen], self.similarity[chosen])


@dataclass(frozen=True)
class Sketches:
    """What a pass over all texts leaves of them: enough to find candidates without the texts."""

    keys: NDArray[np.uint32]
    """One key a band, shape ``[bands, texts]``; ``EMPTY`` where a text is not compared."""
    sequences: NDArray[np.uint64]
    """A hash of each text's words in their order; of a text without words, of its number."""
    figures: NDArray[np.uint64]
    """Bits of each text's numbers and operators: where two texts each have a bit that the other
    lacks, each has a number that the other lacks."""


def sketch(texts: TextSource, config: MinHashConfig, chosen: NDArray[np.int64]) -> Sketches:
    """Read every text once.

    Args:
        texts: normalised texts.
        config: what counts as alike.
        chosen: numbers of the texts to compare, ascending.
    """
    keys = np.full((config.bands, len(texts)), kernels.EMPTY)
    sequences, figures = np.zeros(len(texts), np.uint64), np.zeros(len(texts), np.uint64)
    common = _common_words(texts, config.ngram, chosen)
    for first, chunk in texts.chunks():
        begin, end = np.searchsorted(chosen, [first, first + len(chunk)])
        inside = chosen[begin:end] - first
        part = np.full((config.bands, len(chunk)), kernels.EMPTY)
        text = chunk.bytes, chunk.offsets, chunk.longest
        written = (part, *(each[first : first + len(chunk)] for each in (sequences, figures)))
        how = config.ngram, config.rows, config.min_words, common
        kernels.sketch(*text, inside, *how, first, *written)
        keys[:, first : first + len(chunk)] = part
    return Sketches(keys, sequences, figures)


def near_duplicates(
    texts: TextSource, sketches: Sketches, config: MinHashConfig, chosen: NDArray[np.int64]
) -> Edges:
    """Find every pair of texts that are alike, up to what the S-curve and large groups miss.

    Where more than `data_prep.dedup.kernels.FIRST` texts have a band in common, each is compared
    with the first ones and a neighbour: what is like those is found, and that is what removal
    needs. The result depends on the texts, their order and the configuration alone.

    Args:
        texts: normalised texts.
        sketches: of these texts, with this configuration.
        config: what counts as alike.
        chosen: numbers of the texts to compare, ascending.

    Returns:
        Pairs of numbers of texts, ascending.
    """
    figures = _figures(sketches, config, chosen)

    def pairs(ordered: NDArray[np.uint64], found: NDArray[np.uint64]) -> int:
        return int(kernels.pairs_in_groups(ordered, figures, found))

    candidates = _candidates(sketches.keys[:, chosen], pairs)
    return Edges(*_verified(texts, config, chosen, candidates))


def alike_across(
    texts: TextSource,
    sketches: Sketches,
    config: MinHashConfig,
    left: NDArray[np.int64],
    right: NDArray[np.int64],
) -> Edges:
    """Find every pair of a text on the left and one on the right that are alike.

    Args:
        texts: normalised texts.
        sketches: of these texts, with this configuration.
        config: what counts as alike.
        left: numbers of texts, ascending.
        right: numbers of texts, ascending, all of them above those on the left.

    Returns:
        Pairs of numbers of texts, ascending.
    """
    chosen = np.concatenate([left, right])
    figures = _figures(sketches, config, chosen)

    def pairs(ordered: NDArray[np.uint64], found: NDArray[np.uint64]) -> int:
        return int(kernels.pairs_across(ordered, np.uint64(len(left)), figures, found))

    candidates = _candidates(sketches.keys[:, chosen], pairs)
    return Edges(*_verified(texts, config, chosen, candidates))


def _figures(
    sketches: Sketches, config: MinHashConfig, chosen: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """Bits of numbers, none where numbers tell no rows apart."""
    figures = sketches.figures[chosen]
    return figures if config.numbers == "distinct" else np.zeros_like(figures)


def _verified(
    texts: TextSource,
    config: MinHashConfig,
    chosen: NDArray[np.int64],
    pairs: NDArray[np.uint64],
) -> Verified:
    """Those of some candidates, ``earlier << 32 | later`` as places in ``chosen``, that hold."""
    left, right = chosen[(pairs >> S32).astype(np.int64)], chosen[(pairs & LOW).astype(np.int64)]
    found = [
        _counted(texts, config, left[start : start + PAIRS], right[start : start + PAIRS])
        for start in range(0, len(pairs), PAIRS)
    ]
    nothing = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    lefts, rights, similarities = zip(*(found or [nothing]), strict=True)
    return np.concatenate(lefts), np.concatenate(rights), np.concatenate(similarities)


def _counted(
    texts: TextSource, config: MinHashConfig, left: NDArray[np.int64], right: NDArray[np.int64]
) -> Verified:
    """The pairs of which the similarity, counted on the texts, reaches the threshold."""
    involved = np.unique(np.concatenate([left, right]))
    taken = texts.take(involved)
    text = taken.bytes, taken.offsets, taken.longest
    sides = (np.searchsorted(involved, side).astype(np.uint64) for side in (left, right))
    pairs = next(sides) << S32 | next(sides)
    similarity = np.empty(len(pairs))
    kernels.count_similarity(*text, config.ngram, pairs, similarity)
    stays = similarity >= config.threshold
    if config.numbers == "distinct":
        alike = np.flatnonzero(stays)
        differ = np.zeros(len(alike), np.bool_)
        kernels.numbers_differ(*text, pairs[alike], differ)
        stays[alike[differ]] = False
    return left[stays], right[stays], similarity[stays]


def _common_words(texts: TextSource, ngram: int, among: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A table of the words that are left out of sketches; zero where nothing stands."""
    count = len(among)
    places = np.linspace(0, count - 1, min(count, DOCUMENTS)).astype(np.int64)
    chosen = among[np.unique(places)]
    sample = texts.take(chosen)
    found = np.empty(len(sample.bytes) + len(chosen), np.uint64)
    everyone = np.arange(len(chosen))
    total = kernels.unique_words(
        sample.bytes, sample.offsets, sample.longest, ngram, everyone, found
    )
    words, counts = np.unique(found[:total], return_counts=True)
    frequent = words[counts > max(2, COMMON * len(chosen))]
    table = np.zeros(_power_of_two(4 * len(frequent) + 16), np.uint64)
    kernels.fill(table, frequent)
    return table


def _power_of_two(least: int) -> int:
    return 1 << max(4, (least - 1).bit_length())


Pairing = Callable[[NDArray[np.uint64], NDArray[np.uint64]], int]
"""Writes pairs of one band as far as there is room; answers how many there are."""


def _candidates(keys: NDArray[np.uint32], pairing: Pairing) -> NDArray[np.uint64]:
    """Pairs of texts with a band in common, ``earlier << 32 | later``, each once, in order."""
    pairs = np.empty(0, np.uint64)
    waiting: list[NDArray[np.uint64]] = []
    texts = np.arange(keys.shape[1], dtype=np.uint64)
    for band in keys:
        # numpy sorts whole numbers with SIMD; its stable argsort takes several times as long.
        ordered = np.sort(band.astype(np.uint64) << S32 | texts)
        found = np.empty(max(16, len(ordered) // 4), np.uint64)
        needed = pairing(ordered, found)
        if needed > len(found):
            found = np.empty(needed, np.uint64)
            pairing(ordered, found)
        waiting.append(found[:needed])
        if sum(map(len, waiting)) > max(MERGE, len(pairs)):
            pairs, waiting = np.unique(np.concatenate([pairs, *waiting])), []
    return np.unique(np.concatenate([pairs, *waiting]))
