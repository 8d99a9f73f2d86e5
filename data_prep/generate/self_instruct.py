"""Self-Instruct: new tasks from a few; and Alpaca, which makes them in one call a batch.

The pool grows in the order of the calls' numbers, so that a run can be repeated::

    seeds ──► pool ──► sample ──► teacher ──► filters ──► ROUGE-L novelty ──► instances ──► rows
               ▲                                                │
               └────────────────────────────────────────────────┘

Sources: Self-Instruct (Wang et al., 2022), arXiv 2212.10560; Stanford Alpaca (Taori et al.,
2023).
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_prep.generate.asking import (
    Ask,
    GenerationStopped,
    Reply,
    SamplingConfig,
    Teacher,
    ask_of,
    seed_of,
)
from data_prep.generate.in_order import in_order
from data_prep.generate.instances import Instances, InstancesConfig, Made
from data_prep.generate.instruction_filters import InstructionFilters
from data_prep.generate.novelty import Nearest, NoveltyIndex
from data_prep.generate.self_instruct_prompts import (
    instructions_in,
    more_instructions,
    tasks_at_once,
    tasks_in,
)
from data_prep.generate.tasks import Instance, Task


class SelfInstructConfig(BaseModel):
    """How new tasks are made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    variant: Literal["self-instruct", "alpaca"] = "self-instruct"
    """Instructions first and their cases in calls of their own; or both in one call."""
    instructions: int = Field(default=1000, ge=1)
    """New instructions to make."""
    human_examples: int | None = Field(default=None, ge=0, le=100)
    """Seeds shown in each call; by default 6, for Alpaca 3."""
    generated_examples: int | None = Field(default=None, ge=0, le=100)
    """Instructions made before, shown in each call; by default 2, for Alpaca 0. While there are
    none, seeds take their place."""
    tasks_per_call: int | None = Field(default=None, ge=1, le=100)
    """Tasks asked for in each call; by default 8, for Alpaca 17."""
    ahead: int = Field(default=32, ge=1, le=4096)
    """Calls whose tasks later ones do not see yet: so many can be under way. It decides what is
    made, and ``teacher.limits.concurrency`` does not."""
    give_up_after: int = Field(default=200, ge=1)
    """Calls in a row without one new instruction after which there will be no more."""
    filters: InstructionFilters = InstructionFilters()
    instances: InstancesConfig = InstancesConfig()

    @property
    def shown(self) -> tuple[int, int]:
        """Seeds and new instructions in each call."""
        human, generated = (6, 2) if self.variant == "self-instruct" else (3, 0)
        return (
            human if self.human_examples is None else self.human_examples,
            generated if self.generated_examples is None else self.generated_examples,
        )

    @property
    def wanted(self) -> int:
        """Tasks asked for in each call."""
        return self.tasks_per_call or (8 if self.variant == "self-instruct" else 17)

    @model_validator(mode="after")
    def _shows_some(self) -> Self:
        if not sum(self.shown):
            raise ValueError("human_examples and generated_examples are both 0: show at least one")
        return self


class NothingNew(GenerationStopped):
    """The teacher repeats itself, and fewer instructions were made than asked for."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """An instruction that the teacher wrote, and what became of it."""

    call: int
    """The number of the call, from 0."""
    task: Task
    shown: tuple[str, ...]
    """Ids of the tasks that the call showed."""
    reason: str | None
    """Why it is no good; None for a new instruction of the pool."""
    nearest: tuple[str, float] | None = None
    """Of one that is not new: the id of the instruction it repeats, and the ROUGE-L."""


@dataclass(frozen=True)
class SelfInstruct:
    """What makes tasks, and how."""

    teacher: Teacher
    judging: Teacher
    config: SelfInstructConfig
    sampling: SamplingConfig
    seed: int

    async def run(
        self,
        seeds: Sequence[Task],
        on_proposal: Callable[[Proposal], None] = lambda _proposal: None,
        on_made: Callable[[Made], None] = lambda _made: None,
    ) -> tuple[list[Proposal], list[Made], GenerationStopped | None]:
        """Make instructions, and cases of each.

        Args:
            seeds: the human tasks.
            on_proposal: told of instructions as they come.
            on_made: told of instructions whose cases are made.

        Returns:
            All proposals in order; what came of the new ones, in order; and what stopped
            the rest, if anything did.
        """
        pool = _Pool(seeds, self.config)
        instances = Instances(
            self.teacher, self.judging, self.config.instances, self.sampling, self.seed, seeds
        )
        proposals: list[Proposal] = []
        making: list[asyncio.Task[Made]] = []
        stopped: GenerationStopped | None = None

        def begin(proposal: Proposal) -> None:
            made = asyncio.create_task(instances.make(proposal.task))
            made.add_done_callback(
                lambda done: (
                    None if done.cancelled() or done.exception() else on_made(done.result())
                )
            )
            making.append(made)

        try:
            async with aclosing(
                in_order(lambda n: self._call(pool, n), self.config.ahead)
            ) as calls:
                fruitless = 0
                async for call in calls:
                    for proposal in pool.judge(call):
                        proposals.append(proposal)
                        on_proposal(proposal)
                        if proposal.reason is None:
                            fruitless = -1
                            begin(proposal)
                    fruitless += 1
                    if pool.is_full:
                        break
                    if fruitless >= self.config.give_up_after:
                        raise NothingNew(
                            f"the teacher wrote nothing new in {fruitless} calls in a row: "
                            f"{pool.new} of {self.config.instructions} instructions. Give it more "
                            "seeds, a higher temperature, or a lower filters.novelty."
                        )
        except GenerationStopped as error:
            stopped = error
        except BaseException:
            for each in making:
                each.cancel()
            raise
        made = []
        for outcome in await asyncio.gather(*making, return_exceptions=True):
            if isinstance(outcome, GenerationStopped):
                stopped = stopped or outcome
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                made.append(outcome)
        return proposals, made, stopped

    def _call(self, pool: "_Pool", number: int) -> Awaitable["_Call"]:
        """Begin a call: what it shows is drawn from the pool as it is now."""
        rng = random.Random(seed_of(self.seed, "call", number))
        shown = pool.sample(rng)
        if self.config.variant == "alpaca":
            prompt = tasks_at_once(shown, self.config.wanted)
        else:
            prompt = more_instructions([each.instruction for each in shown], self.config.wanted)
        ask = ask_of("new tasks", prompt, self.sampling, seed_of(self.seed, "tasks", number))
        return self._answered(number, tuple(each.id for each in shown), ask)

    async def _answered(self, number: int, shown: tuple[str, ...], ask: Ask) -> "_Call":
        return _Call(number, shown, await self.teacher.ask(ask))


@dataclass(frozen=True, slots=True)
class _Call:
    number: int
    shown: tuple[str, ...]
    reply: Reply


class _Pool:
    """Seeds and new instructions, and which further ones may join them."""

    def __init__(self, seeds: Sequence[Task], config: SelfInstructConfig) -> None:
        self._config = config
        self._seeds = seeds
        self._new: list[Task] = []
        self._index = NoveltyIndex(config.filters.novelty)
        self._ids: list[str] = []
        for seed in seeds:
            self._add(seed)

    @property
    def new(self) -> int:
        return len(self._new)

    @property
    def is_full(self) -> bool:
        return self.new >= self._config.instructions

    def sample(self, rng: random.Random) -> list[Task]:
        """Tasks to show: of the new ones as many as wanted and there, and seeds, shuffled."""
        human, generated = self._config.shown
        drawn = rng.sample(self._new, min(generated, len(self._new)))
        seeds = rng.sample(self._seeds, min(len(self._seeds), human + generated - len(drawn)))
        shown = [*seeds, *drawn]
        rng.shuffle(shown)
        return shown

    def judge(self, call: _Call) -> list[Proposal]:
        """Take in what a call brought, as far as there is room."""
        found = []
        for place, (instruction, instances) in enumerate(self._tasks(call.reply)):
            if self.is_full:
                break
            task = Task(f"{call.number}-{place}", instruction, instances)
            reason = self._config.filters.fault_of(instruction)
            near = None if reason else self._index.nearest(instruction)
            if reason is None and near is None:
                self._new.append(task)
                self._add(task)
            found.append(
                Proposal(
                    call.number, task, call.shown, reason or self._not_new(near), self._named(near)
                )
            )
        return found

    def _tasks(self, reply: Reply) -> list[tuple[str, tuple[Instance, ...]]]:
        if reply.finish_reason in ("refused", "content_filter"):
            return []
        if self._config.variant == "alpaca":
            return [(text, (one,)) for text, one in tasks_in(reply.text, whole=reply.is_whole)]
        return [(text, ()) for text in instructions_in(reply.text, whole=reply.is_whole)]

    def _add(self, task: Task) -> None:
        self._index.add(task.instruction)
        self._ids.append(task.id)

    def _not_new(self, near: Nearest | None) -> str | None:
        return "not new" if near else None

    def _named(self, near: Nearest | None) -> tuple[str, float] | None:
        return (self._ids[near.text], round(near.score, 4)) if near else None
