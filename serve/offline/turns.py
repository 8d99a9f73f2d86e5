"""Which batches run, and how many lines of one key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Few batches run at a time, and few of one key, so that all keys get on."""

    def __init__(self, most: int, of_key: int) -> None:
        self._all = asyncio.Semaphore(most)
        self._of_key = of_key
        self._by_key: dict[str | None, asyncio.Semaphore] = {}
        self._lines: dict[str | None, asyncio.Semaphore] = {}
        self.suspects = asyncio.Semaphore(1)
        """Batches after whose last start the server crashed before a line was done: if they ran
        side by side, all of them would seem to be what crashes it."""

    @asynccontextmanager
    async def of(self, owner: str | None) -> AsyncIterator[None]:
        """A turn for a batch of this key."""
        mine = self._by_key.setdefault(owner, asyncio.Semaphore(self._of_key))
        async with mine, self._all:
            yield

    def lines_of(self, owner: str | None, most: int) -> asyncio.Semaphore:
        """Places for the lines of all batches of this key."""
        return self._lines.setdefault(owner, asyncio.Semaphore(most))
