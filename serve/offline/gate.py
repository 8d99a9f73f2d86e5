"""How many lines run at a time: few beside people who wait, none while one waits for a place."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

_BETWEEN_LOOKS = 0.05
"""Seconds between looks at interactive requests while lines wait for them."""
_SHARE = 8
"""Beside interactive requests, one in so many of the lines that may run."""


class Others(Protocol):
    """The requests that lines make way for."""

    @property
    def interactive(self) -> int:
        """Those that are under way, waiting or not."""

    @property
    def waiting(self) -> int:
        """Those that have no place in the engine yet."""


class Gate:
    """Places for lines, given in the order in which they are asked for."""

    def __init__(self, places: int, others: Others) -> None:
        """Give places, so many when nobody else asks anything."""
        self._places = places
        self._beside = max(1, places // _SHARE)
        self._others = others
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._look: asyncio.TimerHandle | None = None
        self.running = 0
        """Lines that have a place."""

    async def enter(self) -> None:
        """Wait for a place."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._let_in()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Give the place back."""
        self.running -= 1
        self._let_in()

    def _let_in(self) -> None:
        places = self._beside if self._others.interactive else self._places
        if self._others.waiting:
            places = 0
        while self._waiting and self.running < places:
            turn = self._waiting.popleft()
            if not turn.done():
                self.running += 1
                turn.set_result(None)
        if self._waiting and self._look is None and self.running < self._places:
            loop = asyncio.get_running_loop()
            self._look = loop.call_later(_BETWEEN_LOOKS, self._look_again)

    def _look_again(self) -> None:
        self._look = None
        self._let_in()
