"""Which rows repeat others: found, and bound to a row that stays."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from data_prep.dedup.certificates import Certificate
from data_prep.dedup.exact import first_of_equal
from data_prep.dedup.minhash import MinHashConfig, near_duplicates, sketch
from data_prep.dedup.paraphrases import ReadTexts, paraphrases
from data_prep.dedup.semantic import Progress, SemanticConfig
from data_prep.dedup.sides import Opposed
from data_prep.dedup.stars import stars
from data_prep.dedup.words import TextSource
from data_prep.embeddings import Embedder
from data_prep.errors import DataError

MEASURES = ("equal", "same words", "jaccard", "cosine", "group", "question", "opposite")
"""Those of duplicates, the stricter first; then what else ties a row to one of validation; and of
rows that contradict each other."""


class DedupConfig(BaseModel):
    """Which duplicates are removed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    exact: bool = True
    """Rows whose every turn and tool is the same."""
    same_words: bool = False
    """Rows with the same words in the same order, whatever their case, width and punctuation;
    ``minhash`` finds these too."""
    minhash: MinHashConfig | None = None
    """Rows whose words are nearly the same; ``{}`` takes the defaults, null leaves them in."""
    semantic: SemanticConfig | None = None
    """Rows that say nearly the same in other words, among those that are left; ``{}`` likewise."""


@dataclass(frozen=True)
class Removals:
    """Rows to remove, each with the row that stays and vouches for it, ordered by ``removed``."""

    removed: NDArray[np.int64]
    witness: NDArray[np.int64]
    measure: NDArray[np.int8]
    """Index into `MEASURES`."""
    similarity: NDArray[np.float64]
    unread: int = 0
    """Rows that have no embedding, and were compared by meaning with none."""

    def part(self, start: int, end: int) -> "Removals":
        """Some of them, by their places."""
        inside = slice(start, end)
        return Removals(
            self.removed[inside],
            self.witness[inside],
            self.measure[inside],
            self.similarity[inside],
        )


@dataclass(frozen=True)
class Meaning:
    """What semantic comparison needs beside the settings."""

    read: ReadTexts
    """Gives the part of rows that ``semantic.on`` names."""
    embedder: Embedder
    """The model that ``semantic.model`` names."""


def deduplicate(
    hashes: NDArray[np.uint64],
    texts: TextSource | None,
    config: DedupConfig,
    chosen: NDArray[np.int64],
    meaning: Meaning | None = None,
    progress: Progress = lambda _step, _rows: None,
    opposed: Opposed | None = None,
) -> Removals:
    """Find the rows to remove.

    Every removed row's witness stays: rows are removed around kept rows, not in chains.

    Args:
        hashes: of everything that each row says, shape ``[rows, 2]``.
        texts: the normalised text of each row; needed for ``same_words`` and ``minhash``.
        config: which duplicates.
        chosen: the rows to compare, ascending; their order decides between rows that are equally
            good to keep.
        meaning: needed for ``semantic``.
        progress: told of rows as they are embedded and compared.
        opposed: of rows that go one way or another, says which no measure but ``exact`` may bind.

    Raises:
        DataError: ``semantic`` is set and there is no model, or it does not do what an embedder
            must.
    """
    if config.semantic and meaning is None:
        raise DataError(
            f"dedup.semantic: no model was loaded to embed rows with ({config.semantic.model}). "
            "Load it and hand it in, or leave dedup.semantic out."
        )
    found = _Found(len(hashes))
    left = chosen
    if config.exact:
        left = found.keep_first(hashes[left], left, "equal")
    if config.same_words and not config.minhash and len(left) and texts is not None:
        sequences = sketch(texts, MinHashConfig(bands=1, rows=1), left).sequences
        left = found.keep_first(sequences[left], left, "same words")
    if config.minhash and len(left) and texts is not None:
        sketches = sketch(texts, config.minhash, left)
        left = found.keep_first(sketches.sequences[left], left, "same words")
        edges = near_duplicates(texts, sketches, config.minhash, left)
        if opposed:
            edges = edges.only(~opposed(edges.left, edges.right))
        star = stars(len(hashes), edges.left, edges.right, edges.similarity)
        found.add(star.removed, star.witness, "jaccard", star.similarity)
        left = left[~np.isin(left, star.removed)]
    if opposed:
        left = np.union1d(left, found.release(opposed))
    unread = 0
    if config.semantic and meaning and len(left):
        alike, unread = paraphrases(
            meaning.read,
            left,
            found.vouched_for(),
            config.semantic,
            meaning.embedder,
            progress,
            opposed,
        )
        for removed, (kept, cosine) in alike.items():
            found.add(np.array([removed]), np.array([kept]), "cosine", cosine)
    return replace(found.removals(), unread=unread)


class _Found:
    """Who vouches for whom while measures follow one another."""

    def __init__(self, count: int) -> None:
        self._witness = np.full(count, -1, np.int64)
        self._measure = np.zeros(count, np.int8)
        self._similarity = np.ones(count)

    def add(
        self,
        removed: NDArray[np.int64],
        witness: NDArray[np.int64],
        measure: str,
        similarity: NDArray[np.float64] | float = 1.0,
    ) -> None:
        self._witness[removed] = witness
        self._measure[removed] = MEASURES.index(measure)
        self._similarity[removed] = similarity

    def keep_first(
        self, keys: NDArray[np.uint64], rows: NDArray[np.int64], measure: str
    ) -> NDArray[np.int64]:
        first = first_of_equal(keys)
        repeats = first != np.arange(len(keys))
        self.add(rows[repeats], rows[first[repeats]], measure)
        stays: NDArray[np.int64] = rows[~repeats]
        return stays

    def release(self, opposed: Opposed) -> NDArray[np.int64]:
        """Keep rows after all that go another way than the row they are bound to.

        That can be only of rows with the same words in their order, which do not say where one
        answer ends, and which are bound to a row by way of another.

        Returns:
            The rows, ascending.
        """
        found = self.removals()
        same_words = self._measure[found.removed] == MEASURES.index("same words")
        removed, witness = found.removed[same_words], found.witness[same_words]
        stays: NDArray[np.int64] = removed[opposed(removed, witness)]
        self._witness[stays] = -1
        return stays

    def vouched_for(self) -> dict[int, list[int]]:
        """For rows that stay so far, those that went because of them, unless equal to another."""
        groups: dict[int, list[int]] = {}
        found = self.removals()
        rows = zip(found.removed.tolist(), found.witness.tolist(), strict=True)
        for removed, kept in rows:
            if self._measure[removed] != MEASURES.index("equal"):  # it goes where its equal goes
                groups.setdefault(kept, []).append(removed)
        return groups

    def removals(self) -> Removals:
        """Bind each row to the one that stays at last, when its first witness was removed later.

        What is equal to a removed row, or has its words, is as similar to that row's witness.
        """
        removed = np.flatnonzero(self._witness >= 0)
        witness, measure = self._witness[removed], self._measure[removed]
        similarity = self._similarity[removed]
        while len(later := np.flatnonzero(self._witness[witness] >= 0)):
            between = witness[later]
            weaker = np.maximum(measure[later], self._measure[between])
            measure[later] = weaker
            similarity[later] = np.minimum(similarity[later], self._similarity[between])
            witness[later] = self._witness[between]
        return Removals(removed, witness, measure, similarity)


def certificates(
    removals: Removals,
    config: DedupConfig,
    place: Callable[[NDArray[np.int64]], list[str]],
    model: str = "",
) -> list[Certificate]:
    """What vouches for each removal, in a form that can be replayed.

    Args:
        removals: what `deduplicate` found.
        config: with which settings.
        place: where rows, given by number, came from.
        model: the name of the embedder that was used.
    """
    minhash, semantic = config.minhash or MinHashConfig(), config.semantic or SemanticConfig()
    sides = place(removals.removed), place(removals.witness)
    measures = (MEASURES[index] for index in removals.measure.tolist())
    return [
        Certificate.model_validate(
            {
                "removed": removed,
                "witness": witness,
                "measure": measure,
                "similarity": similarity,
                "threshold": settings.threshold if measure in ("jaccard", "cosine") else 1.0,
                "on": settings.on if measure != "equal" else "both",
                "ngram": minhash.ngram,
                "numbers": settings.numbers,
                "model": model if measure == "cosine" else "",
            }
        )
        for removed, witness, measure, similarity in zip(
            *sides, measures, removals.similarity.tolist(), strict=True
        )
        for settings in [semantic if measure == "cosine" else minhash]
    ]
