"""How much memory the bodies of all requests under way may take together.

A bound on one body and one on the queue's length are none on their product: a thousand waiting
requests of 4 MiB each would be 4 GiB.
"""

from __future__ import annotations


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
