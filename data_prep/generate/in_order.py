"""Calls that overlap, with results in the order of their numbers."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

Result = TypeVar("Result")


async def in_order(start: Callable[[int], Awaitable[Result]], ahead: int) -> AsyncGenerator[Result]:
    """Give results 0, 1, 2, ... without end, while later ones are already being made.

    Number ``n`` is started once result ``n - ahead`` was taken and worked on. What ``start`` sees
    then depends on ``ahead`` and never on who was answered first, so that runs can be repeated.

    Args:
        start: begins the result of a number; what it looks at, it looks at before it returns.
        ahead: how many are under way.
    """
    under_way: deque[asyncio.Future[Result]] = deque()
    try:
        number = 0
        while True:
            while len(under_way) < ahead:
                under_way.append(asyncio.ensure_future(start(number)))
                number += 1
            yield await under_way[0]
            under_way.popleft()
    finally:
        for each in under_way:
            each.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
