"""Sentence embeddings as data preparation needs them; the model comes from outside."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


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
            Unit vectors, shape ``[texts, dimensions]``: their dot product is the cosine. A text's
            vector does not depend on which other texts are embedded with it, up to rounding.
        """
