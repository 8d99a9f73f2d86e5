"""How much a process holds for blocks that come and go: glibc's allocator, by its rules.

Resident memory is more than what is live. glibc's rules for blocks as large as tensors:

- At or above a threshold a block is mapped by itself and given back when freed. Freeing one of up
  to 32 MiB raises the threshold to its size, so that soon only larger blocks are mapped.
- Below it, the smallest free hole that is large enough is taken, else the heap's end grows.
  Neighbouring holes become one. The end is given back when twice the threshold is free there.
- torch asks for aligned blocks, for which glibc looks for 96 bytes more than it needs: a hole that
  a tensor left between two others does not take a tensor of the same size again.

The last rule makes the heap of a training half as large again as what was ever live in it.

Source: malloc/malloc.c of glibc 2.36 (``_int_malloc``, ``_int_memalign``, ``systrim``).
"""

from bisect import bisect_left, insort

SMALLEST_THRESHOLD = 128 * 2**10
LARGEST_THRESHOLD = 32 * 2**20
ALIGNED = 96
"""Bytes beyond its size that an aligned block looks for: 64 to align, 32 for a smallest block."""
TOP_PAD = 128 * 2**10
GRAIN = 64


class Heap:
    """Takes and frees blocks, and says what that holds of the system's memory."""

    def __init__(self) -> None:
        self._threshold = SMALLEST_THRESHOLD
        self._end = 0
        self._top = 0
        """Where the free part at the end begins."""
        self._mapped = 0
        self._by_size: list[tuple[int, int]] = []
        """Holes: size, start."""
        self._starts: dict[int, int] = {}
        """Holes: start -> size."""
        self._ends: dict[int, int] = {}
        """Holes: end -> start."""

    @property
    def held(self) -> int:
        """Bytes that the process holds for all blocks."""
        return self._end + self._mapped

    def take(self, size: int) -> int:
        """Take a block; returns where it is, negative when it is mapped by itself."""
        if size >= self._threshold:
            self._mapped += size
            return -1
        size = _rounded(size)
        index = bisect_left(self._by_size, (size + ALIGNED, 0))
        if index < len(self._by_size):
            found, start = self._by_size[index]
            self._close_hole(start)
            if found > size:
                self._open_hole(start + size, found - size)
            return start
        start, self._top = self._top, self._top + size
        self._end = max(self._end, self._top + ALIGNED)
        return start

    def free(self, start: int, size: int) -> None:
        """Give a block back."""
        if start < 0:
            self._mapped -= size
            if self._threshold < size <= LARGEST_THRESHOLD:
                self._threshold = size
            return
        size = _rounded(size)
        before = self._ends.get(start)
        if before is not None:
            size += start - before
            self._close_hole(before)
            start = before
        after = self._starts.get(start + size)
        if after is not None:
            self._close_hole(start + size)
            size += after
        if start + size < self._top:
            self._open_hole(start, size)
            return
        self._top = start
        if self._end - self._top >= 2 * self._threshold:
            self._end = self._top + TOP_PAD

    def _open_hole(self, start: int, size: int) -> None:
        insort(self._by_size, (size, start))
        self._starts[start], self._ends[start + size] = size, start

    def _close_hole(self, start: int) -> None:
        size = self._starts.pop(start)
        del self._ends[start + size]
        del self._by_size[bisect_left(self._by_size, (size, start))]


def _rounded(size: int) -> int:
    return -(-max(size, 1) // GRAIN) * GRAIN
