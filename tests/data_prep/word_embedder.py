"""An embedder without a model: words are thrown into a few dimensions, synonyms into the same."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import xxhash
from numpy.typing import NDArray

SYNONYMS = {
    "automobile": "car",
    "purchase": "buy",
    "rapid": "fast",
    "inexpensive": "cheap",
    "begin": "start",
    "physician": "doctor",
}


@dataclass
class WordEmbedder:
    """Texts with the same words, or synonyms of them, get the same vector."""

    dimensions: int = 64
    name: str = "words@1"
    asked: list[int] = field(default_factory=list)
    """How many texts each call embedded."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked.append(len(texts))
        vectors = np.zeros((len(texts), self.dimensions))
        for row, text in enumerate(texts):
            for word in text.lower().replace(".", " ").replace("!", " ").split():
                key = xxhash.xxh3_64_intdigest(SYNONYMS.get(word, word).encode())
                vectors[row, key % self.dimensions] += 1 if key >> 63 else -1
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors / np.where(lengths, lengths, 1)).astype(np.float32)
