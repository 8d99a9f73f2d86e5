"""The teacher as algorithms see it: asked once for each question, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from data_prep.generate.asking import Ask, BudgetSpent, GenerationStopped, Reply
from data_prep.generate.journal import Journal, Spent
from data_prep.generate.settings import BudgetConfig, PricesConfig, TeacherConfig


class Answering(Protocol):
    """What makes answers; `data_prep.generate.endpoint.Endpoint` is the real one."""

    async def complete(self, ask: Ask) -> Reply:
        """Answer a call, or raise `GenerationStopped`."""

    def stop(self) -> None:
        """Make no more attempts; those under way may end."""


class JournalTeacher:
    """Answers from the journal what was asked before, and asks the rest, within the budget.

    Leaving its block waits for the calls under way: they are paid for. From the first
    `GenerationStopped` on, no new call is made.
    """

    def __init__(
        self,
        answering: Answering,
        journal: Journal,
        config: TeacherConfig,
        progress: Callable[[str, int], None] = lambda _purpose, _calls: None,
    ) -> None:
        self._answering = answering
        self._journal = journal
        self._config = config
        self._window = asyncio.Semaphore(config.limits.concurrency)
        self._sending = 0
        self._under_way: dict[str, asyncio.Task[Reply]] = {}
        self._stopped: GenerationStopped | None = None
        self._together = [self]
        self._progress = progress
        self._calls = journal.spent.calls
        """Answered or under way; those of earlier runs too."""
        self.replayed = 0
        """Calls that the journal answered."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped = self._stopped or GenerationStopped("generation has ended")
        self._answering.stop()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    @property
    def under_way(self) -> int:
        """Calls that were sent and have no answer yet."""
        return self._sending

    def stop(self, error: GenerationStopped) -> None:
        """Begin no more calls, here and at those that stop together with this one."""
        for each in self._together:
            each._stopped = each._stopped or error

    def stop_together(self, other: Self) -> None:
        """When one of both stops, so does the other: its answers would be paid for and not used."""
        self._together = other._together = [self, other]

    async def ask(self, ask: Ask) -> Reply:
        """See `data_prep.generate.asking.Teacher`. Two that ask the same share one call."""
        key = ask.key(self._config.says)
        task = self._under_way.get(key)
        if task is None:
            known = self._journal.find(key)
            if known is not None:
                self.replayed += 1
                self._progress(ask.purpose, 1)
                return known
            task = asyncio.create_task(self._call(key, ask))
            self._under_way[key] = task
            task.add_done_callback(lambda _done: self._under_way.pop(key))
        # Whoever waits may be cancelled; the call goes on, and its answer is kept.
        return await asyncio.shield(task)

    async def _call(self, key: str, ask: Ask) -> Reply:
        async with self._window:
            if self._stopped:
                raise self._stopped
            try:
                refuse_overspending(
                    self._journal.spent, self._calls, self._config.budget, self._config.prices
                )
                self._calls += 1
                began = time.monotonic()
                reply = await self._sent(key, ask)
            except GenerationStopped as error:
                self.stop(error)
                raise
        await self._keep(key, ask, reply, time.monotonic() - began)
        self._progress(ask.purpose, 1)
        return reply

    async def _keep(self, key: str, ask: Ask, reply: Reply, seconds: float) -> None:
        try:
            await self._journal.answer(key, ask, reply, seconds)
        except OSError as error:
            stopped = GenerationStopped(
                f"{self._journal.path}: {error.strerror}. An answer that cannot be kept is not "
                "used. Mend that and run the same command again: it goes on where it stopped."
            )
            self.stop(stopped)
            raise stopped from error

    async def _sent(self, key: str, ask: Ask) -> Reply:
        self._journal.send(key, ask.purpose)
        self._sending += 1
        try:
            return await self._answering.complete(ask)
        except GenerationStopped:
            self._journal.fail(key)
            raise
        finally:
            self._sending -= 1


def cost_of(spent: Spent, prices: PricesConfig) -> float:
    """What calls cost, in the currency of the prices."""
    paid = spent.prompt_tokens * prices.input + spent.completion_tokens * prices.output
    return paid / 1_000_000


def refuse_overspending(
    spent: Spent, calls: int, budget: BudgetConfig, prices: PricesConfig | None
) -> None:
    """Refuse another call when the budget is used up.

    Args:
        spent: by calls that were answered.
        calls: those and the ones under way.
        budget: what may be spent.
        prices: of the teacher.

    Raises:
        BudgetSpent: as much as the budget allows was spent.
    """
    used: list[tuple[str, float, float | None]] = [
        ("calls", calls, budget.calls),
        ("tokens", spent.tokens, budget.tokens),
        ("cost", cost_of(spent, prices) if prices else 0, budget.cost),
    ]
    for name, so_far, most in used:
        if most is not None and so_far >= most:
            raise BudgetSpent(
                f"the budget is spent: {name} {so_far:,.10g} of {most:,.10g}. To go on, raise "
                f"teacher.budget.{name} and run the same command again."
            )
