"""Texts as the kernels take them: normalised, in one buffer of bytes, a part of them at a time."""

import unicodedata
from collections.abc import Iterable, Iterator
from typing import Protocol, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

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
        texts = self._texts
        lengths = texts.offsets[chosen + 1] - texts.offsets[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        buffer = np.empty(int(offsets[-1]), np.uint8)
        for place, row in enumerate(chosen.tolist()):
            begin, end = texts.offsets[row], texts.offsets[row + 1]
            buffer[offsets[place] : offsets[place + 1]] = texts.bytes[begin:end]
        return Texts(buffer, offsets)


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
        return Texts.from_arrow(self._rows.take(chosen, "words").column(0))


def normalise(text: str) -> str:
    """A text without what copies differ in by accident: width, ligatures, case."""
    return (text if text.isascii() else unicodedata.normalize("NFKC", text)).casefold()
