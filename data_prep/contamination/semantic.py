"""Evaluation questions that mean what a training text means, under an embedding model."""

from collections.abc import Iterator, Sequence

import numpy as np

from data_prep.contamination.index import EvaluationIndex
from data_prep.contamination.words import Words, words_of
from data_prep.embeddings import Embedder, embed_all
from data_prep.errors import DataError

BLOCK = 1024
"""Training texts that are compared with every question at once."""
DECIMALS = 6
"""Of a cosine: the last bits depend on how many texts were embedded together."""


def alike(
    index: EvaluationIndex, texts: Sequence[str], embedder: Embedder | None
) -> Iterator[tuple[int, int, float, bool]]:
    """Compare prompts and responses with every evaluation question.

    Args:
        index: built with an embedder.
        texts: prompts and responses in turn.
        embedder: the same one.

    Yields:
        Training text, evaluation text, their cosine, and whether each has a figure that the
        other lacks while such pairs are kept apart.

    Raises:
        DataError: there is no embedder, or it is another one.
    """
    if embedder is None or embedder.name != index.embedder:
        given = embedder.name if embedder else "none"
        raise DataError(
            f"the evaluation sets were embedded with {index.embedder}, the rows would be with "
            f"{given}: use one model for both."
        )
    assert index.config.semantic is not None
    threshold = index.config.semantic.threshold
    asked = index.allowed[index.vector_texts]
    words = words_of(texts) if index.config.numbers == "distinct" else None
    for side in (0, 1):
        questions = np.flatnonzero(asked & (1 << side))
        chosen = [i for i in range(side, len(texts), 2) if texts[i].strip()]
        if not len(questions):
            continue
        for start in range(0, len(chosen), BLOCK):
            block = chosen[start : start + BLOCK]
            vectors = embed_all(embedder, [texts[i] for i in block], len(block))
            cosines = np.round(vectors @ index.vectors[questions].T, DECIMALS)
            for row, column in np.argwhere(cosines >= threshold).tolist():
                owner = int(index.vector_texts[questions[column]])
                other = words is not None and _other_figures(
                    _figures(words, block[row]), _figures(index.words, owner)
                )
                yield block[row], owner, float(cosines[row, column]), other


def _figures(words: Words, text: int) -> set[int]:
    part = slice(int(words.texts[text]), int(words.texts[text + 1]))
    return set(words.words[part][words.numeric[part]].tolist())


def _other_figures(one: set[int], other: set[int]) -> bool:
    return bool(one - other and other - one)
