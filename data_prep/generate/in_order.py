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
    half done.

    Returns:
        What stopped it before the last item's end; None when nothing did.
    """
    left = enumerate(items)

    async def work() -> None:
        for number, item in left:
            await do(number, item)

    ended = await asyncio.gather(*(work() for _ in range(at_once)), return_exceptions=True)
    stopped = None
    for error in ended:
        if isinstance(error, GenerationStopped):
            stopped = stopped or error
        elif error is not None:
            raise error
    return stopped


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
