"""Semantic duplicates among rows of which some already vouch for others."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from data_prep.dedup.cosine_kernels import exact_cosine, numbers_differ
from data_prep.dedup.numbers import NumberSets
from data_prep.dedup.semantic import Progress, SemanticConfig, semantic_stars
from data_prep.dedup.words import Texts
from data_prep.embeddings import Embedder, embed_all


def paraphrases(
    texts: Sequence[str],
    left: NDArray[np.int64],
    vouched: Mapping[int, Sequence[int]],
    config: SemanticConfig,
    embedder: Embedder,
    progress: Progress = lambda _step, _rows: None,
) -> dict[int, tuple[int, float]]:
    """Find rows to remove, and rows removed before that need another witness now.

    A row that is some earlier removed row's witness goes only if its own witness is like all of
    those too, and they are then its witness's; otherwise it stays, because a row without anything
    left that is like it would be lost.

    Args:
        texts: of every row, the part that is compared.
        left: the rows to compare, ascending; the others went before.
        vouched: for some of them, the rows that went because of them.
        config: what counts as alike.
        embedder: the model.
        progress: told of rows as they are done.

    Returns:
        For each row its witness, which stays, and their cosine.
    """
    chosen = [texts[row] for row in left]
    vectors = _embed(chosen, embedder, progress)
    stars = semantic_stars(vectors, _numbers(chosen, config), config.threshold, progress)
    found = {
        int(left[removed]): (int(left[kept]), float(cosine))
        for removed, kept, cosine in zip(
            stars.removed, stars.witness, stars.similarity, strict=True
        )
    }
    pairs = [(row, found[goes][0]) for goes in found for row in vouched.get(goes, ())]
    position = {int(row): place for place, row in enumerate(left)}
    members = _embed([texts[row] for row, _ in pairs], embedder, progress)
    kept = vectors[[position[kept] for _, kept in pairs]]
    numbers = _numbers([texts[row] for pair in pairs for row in pair], config)
    cosines = {
        row: (witness, float(exact_cosine(members[i], kept[i])))
        for i, (row, witness) in enumerate(pairs)
        if not numbers_differ(numbers.values, numbers.offsets, 2 * i, 2 * i + 1)
    }
    for goes in list(found):
        group = vouched.get(goes, ())
        if all(row in cosines and cosines[row][1] >= config.threshold for row in group):
            found |= {row: cosines[row] for row in group}
        else:
            del found[goes]
    return found


def _embed(texts: Sequence[str], embedder: Embedder, progress: Progress) -> NDArray[np.float32]:
    """Embed texts; one without a letter or figure is like no other."""
    vectors = embed_all(embedder, texts, len(texts), progress)
    says_nothing = [not any(map(str.isalnum, text)) for text in texts]
    vectors[says_nothing] = 0
    return vectors


def _numbers(texts: Sequence[str], config: SemanticConfig) -> NumberSets:
    return (
        NumberSets.of(Texts(texts)) if config.numbers == "distinct" else NumberSets.none(len(texts))
    )
