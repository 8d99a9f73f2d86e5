"""Arrow columns of lists as numpy views: no copies, and no Python numbers."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


class ListColumn:
    """The lists of a column, each a view of the memory that Arrow holds (a mapped file, say)."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        chunks = [chunk for chunk in column.chunks if len(chunk)]
        self._values = [chunk.values.to_numpy() for chunk in chunks]
        self._offsets = [chunk.offsets.to_numpy() for chunk in chunks]
        self._begins = list(accumulate((len(chunk) for chunk in chunks), initial=0))

    def __len__(self) -> int:
        """The number of lists."""
        return self._begins[-1]

    def __getitem__(self, index: int) -> NDArray[Any]:
        """One list. The view can be read, not written."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        chunk = bisect_right(self._begins, index) - 1
        offsets, at = self._offsets[chunk], index - self._begins[chunk]
        values: NDArray[Any] = self._values[chunk]
        return values[offsets[at] : offsets[at + 1]]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Every list in order."""
        return (self[index] for index in range(len(self)))


def list_array(lists: Sequence[Any], value_type: pa.DataType) -> pa.ListArray:
    """Lists or arrays of numbers as one Arrow column.

    Args:
        lists: shape ``[lists]``; bools become 0 and 1.
        value_type: what the column holds.
    """
    kind = value_type.to_pandas_dtype()
    values = np.concatenate([np.zeros(0, kind), *(np.asarray(each, kind) for each in lists)])
    return pa.ListArray.from_arrays(_offsets(map(len, lists)), pa.array(values, value_type))


def _offsets(lengths: Iterator[int]) -> pa.Array:
    return pa.array(list(accumulate(lengths, initial=0)), pa.int32())
