"""Texts as the kernels take them: normalised, in one buffer of bytes."""

import unicodedata
from collections.abc import Iterable

import numpy as np


class Texts:
    """Normalised texts, one after the other in one buffer of UTF-8 bytes."""

    def __init__(self, texts: Iterable[str]) -> None:
        buffer, ends = bytearray(), [0]
        for text in texts:
            buffer += normalise(text).encode()
            ends.append(len(buffer))
        self.offsets = np.array(ends, np.int64)
        self.bytes = np.frombuffer(buffer, np.uint8)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def longest(self) -> int:
        """Bytes of the longest text: no text has more words."""
        return int(np.diff(self.offsets).max(initial=0))


def normalise(text: str) -> str:
    """A text without what copies differ in by accident: width, ligatures, case."""
    return (text if text.isascii() else unicodedata.normalize("NFKC", text)).casefold()
