"""Rows -> the rows that stay, and a certificate for each that does not."""

from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from data_prep.dedup.certificates import Certificate
from data_prep.dedup.exact import first_of_equal, word_sequences
from data_prep.dedup.minhash import MinHashConfig, near_duplicates
from data_prep.dedup.paraphrases import paraphrases
from data_prep.dedup.semantic import Progress, SemanticConfig
from data_prep.dedup.stars import stars
from data_prep.dedup.words import Texts
from data_prep.embeddings import Embedder
from data_prep.errors import DataError
from data_prep.row_text import text_of, whole_text
from data_prep.rows import Placed


class DedupConfig(BaseModel):
    """Which duplicates are removed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    exact: bool = True
    """Rows whose every turn and tool is the same."""
    minhash: MinHashConfig | None = None
    """Rows whose words are nearly the same; ``{}`` takes the defaults, null leaves them in."""
    semantic: SemanticConfig | None = None
    """Rows that say nearly the same in other words, among those that are left; ``{}`` likewise."""


def deduplicate(
    rows: Sequence[Placed],
    config: DedupConfig,
    embedder: Embedder | None = None,
    progress: Progress = lambda _step, _rows: None,
) -> dict[int, Certificate]:
    """Find the rows to remove.

    Every certificate's witness stays: rows are removed around kept rows, not in chains.

    Args:
        rows: in their order, which decides between rows that are equally good to keep.
        config: which duplicates.
        embedder: the model that ``config.semantic`` names.
        progress: told of rows as they are embedded and compared.

    Returns:
        The index of each row to remove, in order, and its certificate.

    Raises:
        DataError: ``config.semantic`` is set and there is no model, or it does not do what an
            embedder must.
    """
    if config.semantic and embedder is None:
        raise DataError(
            f"dedup.semantic: no model was loaded to embed rows with ({config.semantic.model}). "
            "Load it and hand it in, or leave dedup.semantic out."
        )
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
        left = left[~np.isin(left, found.removed)]
    if config.semantic and embedder and len(left):
        texts_of = [text_of(placed.row, config.semantic.on) for placed in rows]
        groups = _vouched_for(witness)
        for removed, (kept, cosine) in paraphrases(
            texts_of, left, groups, config.semantic, embedder, progress
        ).items():
            witness[removed] = (kept, "cosine", cosine)
    model = embedder.name if embedder else ""
    return {index: _certificate(rows, index, witness, config, model) for index in sorted(witness)}


def _vouched_for(witness: dict[int, tuple[int, str, float]]) -> dict[int, list[int]]:
    """For rows that stayed so far, the rows that went because of them, unless equal to another."""
    groups: dict[int, list[int]] = {}
    for removed, (kept, measure, _) in sorted(witness.items()):
        if measure == "equal":
            continue  # it goes wherever its equal goes
        while kept in witness:
            kept = witness[kept][0]
        groups.setdefault(kept, []).append(removed)
    return groups


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
    model: str,
) -> Certificate:
    """Certify against the row that stays at last, when the first witness was removed later."""
    kept, measure, similarity = witness[index]
    while kept in witness:
        kept, next_measure, next_similarity = witness[kept]
        if next_measure == "jaccard" or measure == "equal":
            measure, similarity = next_measure, next_similarity
    minhash, semantic = config.minhash or MinHashConfig(), config.semantic or SemanticConfig()
    settings = semantic if measure == "cosine" else minhash
    return Certificate.model_validate(
        {
            "removed": rows[index].where,
            "witness": rows[kept].where,
            "measure": measure,
            "similarity": similarity,
            "threshold": settings.threshold if measure in ("jaccard", "cosine") else 1.0,
            "on": settings.on if measure != "equal" else "both",
            "ngram": minhash.ngram,
            "numbers": settings.numbers,
            "model": model if measure == "cosine" else "",
        }
    )
