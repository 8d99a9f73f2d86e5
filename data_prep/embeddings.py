"""Sentence embeddings as data preparation needs them; the model comes from outside."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data_prep.errors import DataError

TEXTS = 4096
"""Texts that are handed to a model at a time."""
ROUNDING = 1e-3
"""A unit vector may be this much longer or shorter than 1."""


class Embedder(Protocol):
    """A sentence-embedding model.

    data_prep imports no torch: whoever composes it (llmkit) hands the model in.
    """

    @property
    def name(self) -> str:
        """The model's name and a hash of its files, for certificates and resumption."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts.

        Args:
            texts: shape ``[texts]``; may be empty strings.

        Returns:
            Unit vectors, shape ``[texts, dimensions]``: their dot product is the cosine. Zeros for
            a text that the model cannot read, which is then like no other. A text's vector does
            not depend on which other texts are embedded with it, up to rounding.
        """


def embed_all(
    embedder: Embedder,
    texts: Iterable[str],
    count: int,
    progress: Callable[[str, int], None] = lambda _step, _rows: None,
) -> NDArray[np.float32]:
    """Embed many texts, holding only some of them at a time, and check what comes back.

    Args:
        embedder: the model.
        texts: as many as ``count`` says.
        count: how many.
        progress: told of texts as they are done.

    Returns:
        Shape ``[count, dimensions]``.

    Raises:
        DataError: the model's answer is not one finite vector of length 1, or of zeros, a text.
    """
    found = np.zeros((count, 0), np.float32)
    rest, done = iter(texts), 0
    while some := list(islice(rest, TEXTS)):
        vectors = np.asarray(embedder.embed(some), np.float32)
        _check(vectors, len(some), embedder.name)
        if not done:
            found = np.zeros((count, vectors.shape[1]), np.float32)
        found[done : done + len(some)] = vectors
        done += len(some)
        progress("embedding rows", len(some))
    return found


def has_vector(vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which texts the model could read."""
    return np.asarray(vectors.any(axis=1))


def _check(vectors: NDArray[np.float32], texts: int, name: str) -> None:
    if vectors.ndim != 2 or len(vectors) != texts:
        raise DataError(
            f"embedding model {name}: {texts} texts gave an array of shape {vectors.shape}; "
            f"[{texts}, dimensions] was expected."
        )
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    wrong = ~((np.abs(lengths - 1) < ROUNDING) | (lengths == 0))  # true of NaN too
    if wrong.any():
        raise DataError(
            f"embedding model {name}: {int(wrong.sum())} of {texts} vectors have not length 1 "
            f"(the first is {lengths[wrong][0]:.6g} long). Its vectors must be normalised."
        )
