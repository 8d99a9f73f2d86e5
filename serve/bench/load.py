"""Load on a server: so many requests at once, or so many a second."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from serve.bench.client import Answer, Target, ask, session
from serve.bench.workload import Ask


@dataclass(frozen=True)
class Load:
    """How requests come: exactly one of the two is given."""

    concurrency: int | None = None
    """So many are under way at any moment; the next is sent when one ends (a closed loop)."""

    rate: float | None = None
    """So many are sent a second on average, at random moments, whatever the server does (an
    open loop, Poisson arrivals)."""

    def __str__(self) -> str:
        return f"concurrency {self.concurrency}" if self.concurrency else f"{self.rate:g}/s"


@dataclass(frozen=True)
class Round:
    """All requests of one load, and how long they took together."""

    load: Load
    answers: tuple[Answer, ...]
    seconds: float


async def run_load(
    target: Target,
    asks: Sequence[Ask],
    load: Load,
    *,
    seed: int = 0,
    on_answer: Callable[[Answer], None] = lambda _: None,
) -> Round:
    """Send every request under a load and wait for all answers."""
    async with session(target) as client:

        async def one(what: Ask) -> Answer:
            answer = await ask(client, target, what)
            on_answer(answer)
            return answer

        began = time.perf_counter()
        if load.concurrency:
            answers = await _closed(one, asks, load.concurrency)
        else:
            answers = await _open(one, asks, load.rate or 1.0, seed)
        return Round(load, tuple(answers), time.perf_counter() - began)


async def run_static(target: Target, asks: Sequence[Ask], batch: int) -> Round:
    """Requests in batches as a static server takes them: the next begins when all have ended."""
    async with session(target) as client:
        began = time.perf_counter()
        answers: list[Answer] = []
        for start in range(0, len(asks), batch):
            together = asks[start : start + batch]
            answers += await asyncio.gather(*(ask(client, target, what) for what in together))
        return Round(Load(concurrency=batch), tuple(answers), time.perf_counter() - began)


_Send = Callable[[Ask], Coroutine[Any, Any, Answer]]


async def _closed(send: _Send, asks: Sequence[Ask], at_once: int) -> list[Answer]:
    left = iter(asks)
    answers: list[Answer] = []

    async def client() -> None:
        answers.extend([await send(what) for what in left])

    await asyncio.gather(*(client() for _ in range(min(at_once, len(asks)))))
    return answers


async def _open(send: _Send, asks: Sequence[Ask], rate: float, seed: int) -> list[Answer]:
    draw = random.Random(seed)
    tasks = []
    moment = time.perf_counter()
    for what in asks:
        await asyncio.sleep(max(0.0, moment - time.perf_counter()))
        tasks.append(asyncio.ensure_future(send(what)))
        moment += draw.expovariate(rate)
    return list(await asyncio.gather(*tasks))
