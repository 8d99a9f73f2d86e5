"""The models that data preparation may ask for; they come from outside, because torch does."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xxhash
from numpy.typing import NDArray

from data_prep.embeddings import Embedder
from data_prep.errors import DataError


class Scorer(Protocol):
    """A language model that says how well it expects a text."""

    @property
    def name(self) -> str:
        """The model's name."""

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """The perplexity of each text, shape ``[texts]``; NaN where there is nothing to score."""


class Models(Protocol):
    """Loads models by the names that a recipe gives them."""

    def embedder(self, name: str) -> Embedder:
        """A sentence-embedding model."""

    def scorer(self, name: str | None, max_tokens: int) -> Scorer:
        """A language model, the base model when no name is given."""


class NoModels:
    """For whoever prepares data without any."""

    def embedder(self, name: str) -> Embedder:
        """Refuse.

        Raises:
            DataError: always.
        """
        raise DataError(_MISSING.format(name))

    def scorer(self, name: str | None, max_tokens: int) -> Scorer:
        """Refuse.

        Raises:
            DataError: always.
        """
        del max_tokens
        raise DataError(_MISSING.format(name or "the base model"))


_MISSING = (
    "the settings ask for a model ({}), and none can be loaded here: hand `prepare` the models, as "
    "`llmkit prep` does, or leave out what asks for one (filters of kind perplexity, "
    "dedup.semantic, contamination.semantic, select by mmr or k_centre)."
)


@dataclass(frozen=True)
class RememberedEmbedder:
    """An embedder whose answers are kept on disk, so that an interrupted run goes on."""

    model: Embedder
    folder: Path

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As the model does, or did before."""
        return _remembered(self.folder, self.name, texts, self.model.embed)


@dataclass(frozen=True)
class RememberedScorer:
    """A scorer whose answers are kept on disk."""

    model: Scorer
    folder: Path

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """As the model does, or did before."""
        return _remembered(self.folder, self.name, texts, self.model.score)


def _remembered(
    folder: Path,
    name: str,
    texts: Sequence[str],
    compute: Callable[[Sequence[str]], NDArray[Any]],
) -> NDArray[Any]:
    digest = xxhash.xxh3_128(name.encode())
    for text in texts:
        content = text.encode()
        digest.update(f"\n{len(content)}:".encode() + content)
    path = folder / f"{digest.hexdigest()}.npy"
    with suppress(OSError, ValueError, EOFError):  # none yet, or one cut short by a power failure
        found: NDArray[Any] = np.load(path)
        return found
    answer = compute(texts)
    folder.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}.partial")
    with beside.open("wb") as file:
        np.save(file, answer)
    beside.replace(path)
    return answer
