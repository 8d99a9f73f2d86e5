"""Semantic duplicates among rows of which some already vouch for others."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from data_prep.dedup.cosine_kernels import exact_cosine, numbers_differ
from data_prep.dedup.numbers import NumberSets
from data_prep.dedup.semantic import Progress, SemanticConfig, semantic_stars
from data_prep.dedup.sides import Opposed
from data_prep.dedup.stars import Stars
from data_prep.dedup.words import Texts
from data_prep.embeddings import Embedder, embed_all, has_vector

ReadTexts = Callable[[NDArray[np.int64]], Iterable[str]]
"""Gives the texts of some rows, one after the other: not all need to be in memory at once."""
TEXTS = 4096
"""Texts whose numbers are looked for at a time."""


def paraphrases(
    read: ReadTexts,
    left: NDArray[np.int64],
    vouched: Mapping[int, Sequence[int]],
    config: SemanticConfig,
    embedder: Embedder,
    progress: Progress = lambda _step, _rows: None,
    opposed: Opposed | None = None,
) -> tuple[dict[int, tuple[int, float]], int]:
    """Find rows to remove, and rows removed before that need another witness now.

    A row that is some earlier removed row's witness goes only if its own witness is like all of
    those too, and they are then its witness's; otherwise it stays, because a row without anything
    left that is like it would be lost.

    Args:
        read: gives the part of rows that is compared.
        left: the rows to compare, ascending; the others went before.
        vouched: for some of them, the rows that went because of them.
        config: what counts as alike.
        embedder: the model.
        progress: told of rows as they are done.
        opposed: says which rows go another way than others.

    Returns:
        For each row its witness, which stays, and their cosine; and how many of the rows have no
        vector, because the model cannot read them or they have neither letter nor figure.
    """
    vectors = embed_rows(read, left, embedder, progress)
    numbers = _numbers(read, left, config)
    stars = semantic_stars(vectors, numbers, config.threshold, progress)
    found, rest = _bound(stars, left, opposed)
    while len(rest):  # rows that go another way than what they are likest to: among themselves
        places = np.searchsorted(left, rest)
        stars = semantic_stars(vectors[places], numbers.take(places), config.threshold)
        bound, rest = _bound(stars, rest, opposed)
        found |= bound
    pairs = [(row, found[goes][0]) for goes in found for row in vouched.get(goes, ())]
    flat = np.array(pairs, np.int64).reshape(-1, 2)
    members = embed_rows(read, flat[:, 0], embedder, progress)
    kept = vectors[np.searchsorted(left, flat[:, 1])]
    numbers = _numbers(read, flat.ravel(), config)
    apart = opposed(flat[:, 0], flat[:, 1]) if opposed else np.zeros(len(flat), np.bool_)
    cosines = {
        row: (witness, float(exact_cosine(members[i], kept[i])))
        for i, (row, witness) in enumerate(pairs)
        if not apart[i] and not numbers_differ(numbers.values, numbers.offsets, 2 * i, 2 * i + 1)
    }
    for goes in list(found):
        group = vouched.get(goes, ())
        if all(row in cosines and cosines[row][1] >= config.threshold for row in group):
            found |= {row: cosines[row] for row in group}
        else:
            del found[goes]
    return found, int((~has_vector(vectors)).sum())


def _bound(
    stars: Stars, rows: NDArray[np.int64], opposed: Opposed | None
) -> tuple[dict[int, tuple[int, float]], NDArray[np.int64]]:
    """Of some rows the witness and cosine of each that goes; and those that go another way."""
    removed, witness = rows[stars.removed], rows[stars.witness]
    apart = opposed(removed, witness) if opposed else np.zeros(len(removed), np.bool_)
    cosine = stars.similarity[~apart].tolist()
    found = zip(witness[~apart].tolist(), cosine, strict=True)
    return dict(zip(removed[~apart].tolist(), found, strict=True)), removed[apart]


def embed_rows(
    read: ReadTexts,
    rows: NDArray[np.int64],
    embedder: Embedder,
    progress: Progress = lambda _step, _rows: None,
) -> NDArray[np.float32]:
    """Embed rows; one without a letter or figure is like no other.

    Returns:
        Shape ``[rows, dimensions]``.
    """
    says_nothing: list[bool] = []

    def watched() -> Iterator[str]:
        for text in read(rows):
            says_nothing.append(not any(map(str.isalnum, text)))
            yield text

    vectors = embed_all(embedder, watched(), len(rows), progress)
    vectors[np.array(says_nothing, bool)] = 0
    return vectors


def _numbers(read: ReadTexts, rows: NDArray[np.int64], config: SemanticConfig) -> NumberSets:
    if config.numbers == "merge":
        return NumberSets.none(len(rows))
    texts = iter(read(rows))
    parts = iter(lambda: list(islice(texts, TEXTS)), [])
    return NumberSets.joined(NumberSets.of(Texts.of(part)) for part in parts)
