"""How much memory the bodies of all requests under way may take together.

A bound on one body and one on the queue's length are none on their product: a thousand waiting
requests of 4 MiB each would be 4 GiB.
"""

from __future__ import annotations


def parsed_size(raw: bytes) -> int:
    """Bytes that a JSON body takes once it is parsed, roughly and rather too many.

    Text is held a second time. Beside it an object takes about 200 bytes, a list 80, a value and
    a name some 50 each, and a place in either 8 to 40.
    """
    each = {b"{": 200, b"[": 80, b",": 64, b":": 80}
    return 512 + len(raw) + sum(size * raw.count(sign) for sign, size in each.items())


class BodiesFull(Exception):
    """There is no room for more of a body now."""


class BodyMemory:
    """Counts the bytes of bodies that are held."""

    def __init__(self, most: int) -> None:
        """Hold at most so many bytes."""
        self.most = most
        self.held = 0

    def share(self) -> Share:
        """Room for one request's body: none yet."""
        return Share(self)


class Share:
    """What one request holds."""

    __slots__ = ("_memory", "_size")

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self._size = 0

    def take(self, size: int) -> None:
        """Hold so many bytes more.

        Raises:
            BodiesFull: all requests together would hold more than they may.
        """
        memory = self._memory
        if memory.held + size > memory.most:
            raise BodiesFull
        memory.held += size
        self._size += size

    def give_back(self) -> None:
        """Hold nothing any more."""
        self._memory.held -= self._size
        self._size = 0
