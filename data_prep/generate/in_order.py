"""Work that overlaps and still comes out the same: begun in order, or taken in order."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TypeVar

from data_prep.generate.asking import GenerationStopped

Item = TypeVar("Item")
Result = TypeVar("Result")


async def for_each(
    items: Iterable[Item], do: Callable[[int, Item], Awaitable[None]], at_once: int
) -> GenerationStopped | None:
    """Do something with every item, given with its number, so many at a time.

    One is begun when another has ended, so that what stops the work in the middle leaves few
    half done. All are begun: what was answered in an earlier run is there even when nothing more
    will be answered in this one.

    Returns:
        What stopped some of them first; None when nothing did.
    """
    left = enumerate(items)
    stopped: list[GenerationStopped] = []

    async def work() -> None:
        for number, item in left:
            try:
                await do(number, item)
            except GenerationStopped as error:
                stopped.append(error)

    await asyncio.gather(*(work() for _ in range(at_once)))
    return stopped[0] if stopped else None


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
