"""Rows -> the rows that stay, and a certificate for each that does not."""

from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from data_prep.dedup.certificates import Certificate
from data_prep.dedup.exact import first_of_equal, word_sequences
from data_prep.dedup.minhash import MinHashConfig, near_duplicates
from data_prep.dedup.stars import stars
from data_prep.dedup.words import Texts
from data_prep.row_text import text_of, whole_text
from data_prep.rows import Placed


class DedupConfig(BaseModel):
    """Which duplicates are removed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    exact: bool = True
    """Rows whose every turn and tool is the same."""
    minhash: MinHashConfig | None = None
    """Rows whose words are nearly the same; ``{}`` takes the defaults, null leaves them in."""


def deduplicate(rows: Sequence[Placed], config: DedupConfig) -> dict[int, Certificate]:
    """Find the rows to remove.

    Every certificate's witness stays: rows are removed around kept rows, not in chains.

    Args:
        rows: in their order, which decides between rows that are equally good to keep.
        config: which duplicates.

    Returns:
        The index of each row to remove, in order, and its certificate.
    """
    witness: dict[int, tuple[int, str, float]] = {}
    left = np.arange(len(rows))
    if config.exact:
        hashes = [xxhash.xxh3_128_digest(whole_text(placed.row).encode()) for placed in rows]
        left = _keep_first(np.array(hashes, dtype="V16"), left, "equal", witness)
    if config.minhash and len(left):
        settings = config.minhash
        texts = Texts(text_of(placed.row, settings.on) for placed in rows)
        left = _keep_first(word_sequences(texts)[left], left, "same words", witness)
        edges = near_duplicates(texts, settings, left)
        found = stars(len(rows), edges.left, edges.right, edges.similarity)
        for removed, kept, similarity in zip(
            found.removed.tolist(), found.witness.tolist(), found.similarity.tolist(), strict=True
        ):
            witness[removed] = (kept, "jaccard", similarity)
    return {index: _certificate(rows, index, witness, config) for index in sorted(witness)}


def _keep_first(
    keys: NDArray[np.generic],
    left: NDArray[np.int64],
    measure: str,
    witness: dict[int, tuple[int, str, float]],
) -> NDArray[np.int64]:
    first = first_of_equal(keys)
    repeats = first != np.arange(len(keys))
    for removed, kept in zip(left[repeats].tolist(), left[first[repeats]].tolist(), strict=True):
        witness[removed] = (kept, measure, 1.0)
    stays: NDArray[np.int64] = left[~repeats]
    return stays


def _certificate(
    rows: Sequence[Placed],
    index: int,
    witness: dict[int, tuple[int, str, float]],
    config: DedupConfig,
) -> Certificate:
    """Certify against the row that stays at last, when the first witness was removed later."""
    settings = config.minhash or MinHashConfig()
    kept, measure, similarity = witness[index]
    while kept in witness:
        kept, next_measure, next_similarity = witness[kept]
        if next_measure == "jaccard" or measure == "equal":
            measure, similarity = next_measure, next_similarity
    return Certificate.model_validate(
        {
            "removed": rows[index].where,
            "witness": rows[kept].where,
            "measure": measure,
            "similarity": similarity,
            "threshold": settings.threshold if measure == "jaccard" else 1.0,
            "on": settings.on if measure != "equal" else "both",
            "ngram": settings.ngram,
            "numbers": settings.numbers,
        }
    )
