"""Texts as the kernels take them: normalised, in one buffer of bytes, a part of them at a time."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Protocol, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_prep.dedup import kernels
from data_prep.shards import Rows


class Texts:
    """Normalised texts, one after the other in one buffer of UTF-8 bytes."""

    def __init__(self, buffer: NDArray[np.uint8], offsets: NDArray[np.int64]) -> None:
        self.bytes = buffer
        self.offsets = offsets

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Normalise texts and lay them end to end."""
        buffer, ends = bytearray(), [0]
        for text in texts:
            buffer += normalise(text).encode()
            ends.append(len(buffer))
        return cls(np.frombuffer(buffer, np.uint8), np.array(ends, np.int64))

    @classmethod
    def from_arrow(cls, column: pa.ChunkedArray) -> Self:
        """Take over a column of normalised texts (``large_binary``)."""
        whole = column.combine_chunks()
        array = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
        _, offsets, data = array.buffers()
        starts = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
        if data is None:
            return cls(np.empty(0, np.uint8), starts)
        return cls(np.frombuffer(data, np.uint8), starts)

    def to_arrow(self) -> pa.Array:
        """The same bytes as an Arrow column; one built a text at a time takes far more memory."""
        buffers = [None, pa.py_buffer(self.offsets), pa.py_buffer(self.bytes)]
        return pa.Array.from_buffers(pa.large_binary(), len(self), buffers)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def longest(self) -> int:
        """Bytes of the longest text: no text has more words."""
        return int(np.diff(self.offsets).max(initial=0))


class TextSource(Protocol):
    """Many normalised texts of which few need to be in memory at once."""

    def __len__(self) -> int:
        """How many there are."""

    def chunks(self) -> Iterator[tuple[int, Texts]]:
        """All of them in order, a part at a time: the number of its first, and the part."""

    def take(self, chosen: NDArray[np.int64]) -> Texts:
        """Some of them, by their numbers, ascending."""


class TextsInMemory:
    """All texts in one part."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = Texts.of(texts)

    def __len__(self) -> int:
        return len(self._texts)

    def chunks(self) -> Iterator[tuple[int, Texts]]:
        """The one part there is."""
        yield 0, self._texts

    def take(self, chosen: NDArray[np.int64]) -> Texts:
        """Copies of some texts."""
        return _gathered(self, chosen)


class TextsInShards:
    """Texts in the ``words`` column of shards; a shard is a part."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def chunks(self) -> Iterator[tuple[int, Texts]]:
        """One shard after the other."""
        for start, table in self._rows.each("words"):
            yield start, Texts.from_arrow(table.column(0))

    def take(self, chosen: NDArray[np.int64]) -> Texts:
        """The texts of some rows."""
        return _gathered(self, chosen)


def _gathered(source: TextSource, chosen: NDArray[np.int64]) -> Texts:
    """Copies of some texts, ascending; beside them one part at a time is in memory."""
    offsets = np.zeros(len(chosen) + 1, np.int64)
    for first, texts in source.chunks():
        begin, end = np.searchsorted(chosen, [first, first + len(texts)])
        inside = chosen[begin:end] - first
        offsets[begin + 1 : end + 1] = texts.offsets[inside + 1] - texts.offsets[inside]
    np.cumsum(offsets, out=offsets)
    buffer = np.empty(int(offsets[-1]), np.uint8)
    for first, texts in source.chunks():
        begin, end = np.searchsorted(chosen, [first, first + len(texts)])
        kernels.gather(
            texts.bytes, texts.offsets, chosen[begin:end] - first, offsets[begin:], buffer
        )
    return Texts(buffer, offsets)


_DIGIT = re.compile(r"[^\D0-9]")
"""A decimal digit of another script."""


def normalise(text: str) -> str:
    """A text without what copies differ in by accident: width, ligatures, case, digits' script."""
    if text.isascii():
        return text.casefold()
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), folded)
