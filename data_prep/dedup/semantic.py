"""Semantic duplicates: rows whose sentence embeddings point the same way.

Every pair of vectors is compared, in blocks of products that take a bounded amount of memory. The
pairs that are alike are never listed: 40,000 rows that say the same make 800 million of them. A
first pass counts how many rows each row is alike to; a second one keeps rows, those with most
others first, and finds for each row that goes the kept row most like it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xxhash
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from data_prep.dedup import cosine_kernels
from data_prep.dedup.exact import first_of_equal
from data_prep.dedup.numbers import NumberSets
from data_prep.dedup.stars import Stars
from data_prep.embeddings import has_vector

BLOCK = 4096
"""Rows a side of a block: 64 MiB of products."""
CENTRES = 512
"""Rows that are decided at a time."""

Progress = Callable[[str, int], None]


class SemanticConfig(BaseModel):
    """When two rows say the same in other words."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float = Field(default=0.95, gt=0, le=0.9999)
    """Cosine of the two embeddings from which rows are duplicates. An embedding cannot tell a turn
    of sense from a turn of phrase: of 20 hand-made paraphrases of short questions and 20 questions
    that only look alike, the default model puts 2 and 2 at 0.95 or above, 9 and 2 at 0.9, 18 and 4
    at 0.8. Look at what is removed before going below the default."""
    model: str = Field(default="all-minilm-l6-v2", min_length=1)
    """The sentence-embedding model: a catalogue name, a sentence-transformers folder, a hub id.
    The default reads English and, less well, other languages in Latin script; rows that a model
    cannot read are nobody's duplicates."""
    on: Literal["prompt", "response", "both"] = "both"
    """The text that is compared."""
    numbers: Literal["distinct", "merge"] = "distinct"
    """Rows of which each has a number that the other lacks: kept apart, or compared like others."""


@dataclass(frozen=True)
class _Rows:
    """What is compared, one entry a row."""

    vectors: NDArray[np.float32]
    numbers: NumberSets
    threshold: float

    @property
    def about(self) -> tuple[object, ...]:
        """What the kernels want to know of the rows."""
        return self.threshold, self.vectors, self.numbers.values, self.numbers.offsets


def semantic_stars(
    vectors: NDArray[np.float32],
    numbers: NumberSets,
    threshold: float,
    progress: Progress = lambda _step, _rows: None,
) -> Stars:
    """Find rows to remove so that no two that stay are alike and every other is like one of them.

    The same as listing all pairs and giving them to `data_prep.dedup.stars.stars`, without the
    list. The result does not depend on the size of blocks nor on the threads that multiply them.

    Args:
        vectors: unit vectors, or zeros for rows that are like no other; shape
            ``[rows, dimensions]``; may be memory-mapped.
        numbers: rows of which each has a number that the other lacks are not alike.
        threshold: cosine from which rows are alike.
        progress: told of rows as they are compared.

    Returns:
        The removed rows, in order, and for each the most similar row that stays.
    """
    first = _first_of_equal(vectors, numbers)
    single = np.flatnonzero(first == np.arange(len(vectors)))
    weights = np.bincount(first, minlength=len(vectors))[single]
    # Rows that repeat another's vector would only cost time; without any, nothing is copied.
    own = np.asarray(vectors) if len(single) == len(vectors) else vectors[single]
    rows = _Rows(own, numbers.take(single), threshold)
    degrees = _degrees(rows, weights, progress) + weights - 1
    kept, witness, best = _keep(rows, degrees)
    position = np.searchsorted(single, first)
    goes = ~kept[position] | (first != np.arange(len(vectors)))
    removed = np.flatnonzero(goes)
    by = np.where(kept, np.arange(len(single)), witness)[position[removed]]
    return Stars(removed, single[by], np.where(kept, 1.0, best)[position[removed]])


def _first_of_equal(vectors: NDArray[np.float32], numbers: NumberSets) -> NDArray[np.int64]:
    """The first row with the same vector and numbers; a row without a vector is its own."""
    if not len(vectors):
        return np.empty(0, np.int64)
    readable = has_vector(vectors)
    keys = np.empty(len(vectors), "V16")
    for row in range(len(vectors)):
        hashed = xxhash.xxh3_128(np.ascontiguousarray(vectors[row]).data)
        hashed.update(numbers.values[numbers.offsets[row] : numbers.offsets[row + 1]].data)
        keys[row] = hashed.digest()
    found = first_of_equal(keys.view(np.uint64).reshape(-1, 2))
    return np.where(readable, found, np.arange(len(vectors)))


def _degrees(rows: _Rows, weights: NDArray[np.int64], progress: Progress) -> NDArray[np.int64]:
    """How many rows each row is alike to."""
    vectors, degrees = rows.vectors, np.zeros(len(rows.vectors), np.int64)
    for first in range(0, len(vectors), BLOCK):
        upper = np.ascontiguousarray(vectors[first : first + BLOCK])
        for second in range(first, len(vectors), BLOCK):
            products = upper @ vectors[second : second + BLOCK].T
            cosine_kernels.count_alike(products, first, second, *rows.about, weights, degrees)
        progress("comparing embeddings", len(upper))
    return degrees


def _keep(
    rows: _Rows, degrees: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.float64]]:
    """Keep rows in the order of their degrees, ties by the earlier one, unless a kept one is alike.

    Returns:
        Which rows stay; for those that do not their witness, and the two rows' cosine.
    """
    vectors, count = rows.vectors, len(rows.vectors)
    covered, witness, best = np.zeros(count, bool), np.full(count, -1), np.zeros(count)
    kept = degrees == 0
    touched = np.flatnonzero(~kept)
    order = touched[np.lexsort((touched, -degrees[touched]))]
    while len(order):
        turn, order = order[:CENTRES], order[CENTRES:]
        products = vectors[turn] @ vectors[turn].T
        cosine_kernels.keep_in_turn(products, turn, *rows.about, covered, kept)
        centres = turn[kept[turn]]
        others = touched[~kept[touched]]
        for start in range(0, len(others), BLOCK):
            some = others[start : start + BLOCK]
            products = vectors[centres] @ vectors[some].T
            cosine_kernels.cover(products, centres, some, *rows.about, covered, witness, best)
        order = order[~covered[order]]
    return kept, witness, best
