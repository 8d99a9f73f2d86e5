"""Evol-Instruct: instructions made harder, or others like them made up, round by round.

Each instruction of the pool goes its own way through all rounds, so no round waits for another::

    pool ──► evolve ──► leaked? too long? ──► any gain? ──► answer ──► refusal? empty? ──► row
      ▲         by an operation                asks the teacher                             │
      ├──────────── the parent, unchanged, when anything is wrong ◄───────────────────────┤
      └──────────── the child, when all is well ◄─────────────────────────────────────────┘

Source: WizardLM (Xu et al., 2023), arXiv 2304.12244.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_prep.generate.answers import Answered, AnswersConfig, answer
from data_prep.generate.asking import (
    GenerationStopped,
    SamplingConfig,
    Teacher,
    ask_of,
    seed_of,
)
from data_prep.generate.elimination import Reason, grew_by, leaked
from data_prep.generate.evol_prompts import (
    EVOLVED,
    IN_DEPTH,
    OPERATIONS,
    Operation,
    evolving,
    judging_gain,
)
from data_prep.generate.in_order import for_each
from data_prep.generate.judging import Scores
from data_prep.generate.structured import ask_for


class OperationWeights(BaseModel):
    """How often each operation is drawn, beside the others; 0: never."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    constraints: float = Field(default=1, ge=0, allow_inf_nan=False)
    """In depth: one more requirement."""
    deepen: float = Field(default=1, ge=0, allow_inf_nan=False)
    """In depth: the question goes deeper and broader."""
    concretise: float = Field(default=1, ge=0, allow_inf_nan=False)
    """In depth: specific notions instead of general ones."""
    reasoning: float = Field(default=1, ge=0, allow_inf_nan=False)
    """In depth: more steps of reasoning."""
    complicate: float = Field(default=1, ge=0, allow_inf_nan=False)
    """In depth: input data in a table, code or another format."""
    breadth: float = Field(default=1, ge=0, allow_inf_nan=False)
    """In breadth: a new instruction of the same domain, of a rarer kind."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not any(self.weights):
            raise ValueError("all weights are 0: give at least one operation a weight")
        return self

    @property
    def weights(self) -> list[float]:
        """In the order of `OPERATIONS`."""
        return [getattr(self, name) for name in OPERATIONS]


class EvolConfig(BaseModel):
    """How instructions evolve."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rounds: int = Field(default=4, ge=1, le=100)
    """How often each instruction of the pool is evolved."""
    operations: OperationWeights = OperationWeights()
    added_words: tuple[int, int] = (10, 20)
    """Least and most words that the teacher is told an operation in depth may add."""
    max_added_words: int | None = Field(default=40, ge=1)
    """Words that an instruction may really grow by in one round; null: any. It does not hold for
    ``complicate``, which adds data, and ``breadth``, which makes up another."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        least, most = self.added_words
        if not 0 <= least <= most:
            raise ValueError(f"added_words wants two numbers, the less first, not {least}, {most}")
        return self


@dataclass(frozen=True, slots=True)
class Instruction:
    """One of the pool."""

    id: str
    text: str
    seed: str
    """The id of the seed that it goes back to; its own for a seed."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One instruction's turn in one round."""

    round: int
    """From 1."""
    number: int
    """Of the seed, from 0."""
    operation: Operation
    parent: Instruction
    child: Instruction
    answer: str
    """Empty when none was asked for."""
    reason: Reason | None
    """Why the child is no good; None when it is a row."""
    scores: Scores | None = None


@dataclass(frozen=True)
class Evolution:
    """What evolves instructions, and how."""

    teacher: Teacher
    judging: Teacher
    """Who scores answers."""
    config: EvolConfig
    answers: AnswersConfig
    sampling: SamplingConfig
    seed: int
    at_once: int
    """Instructions that are on their way at a time, each with one call."""

    async def run(
        self,
        seeds: Sequence[Instruction],
        on_attempt: Callable[[Attempt], None] = lambda _attempt: None,
    ) -> tuple[list[Attempt], GenerationStopped | None]:
        """Evolve all instructions through all rounds.

        Args:
            seeds: the pool at the beginning.
            on_attempt: told of attempts as they end.

        Returns:
            The attempts that came to an end, by round and then by seed, whatever the order in
            which the teacher answered; and what stopped the others, if anything did.
        """
        attempts: list[Attempt] = []

        def keep(attempt: Attempt) -> None:
            attempts.append(attempt)
            on_attempt(attempt)

        stopped = await for_each(seeds, partial(self._chain, keep), self.at_once)
        attempts.sort(key=lambda each: (each.round, each.number))
        return attempts, stopped

    async def _chain(
        self, keep: Callable[[Attempt], None], number: int, instruction: Instruction
    ) -> None:
        for turn in range(1, self.config.rounds + 1):
            attempt = await self._evolve(number, turn, instruction)
            keep(attempt)
            if attempt.reason is None:
                instruction = attempt.child

    async def _evolve(self, number: int, turn: int, parent: Instruction) -> Attempt:
        seed = seed_of(self.seed, turn, parent.seed, number)
        operation = random.Random(seed).choices(OPERATIONS, self.config.operations.weights)[0]
        prompt = evolving(operation, parent.text, self.config.added_words)
        reply = await self.teacher.ask(ask_of(operation, prompt, self.sampling, seed))
        text = _instruction_in(reply.text)
        child = Instruction(f"{parent.seed}-{turn}", text, parent.seed)

        def attempt(reason: Reason | None, found: Answered | None = None) -> Attempt:
            answered = (found.text, reason, found.scores) if found else ("", reason, None)
            return Attempt(turn, number, operation, parent, child, *answered)

        if not reply.is_whole or not text:
            return attempt("unanswered")
        if leaked(text, parent.text):
            return attempt("leaked")
        if self._grew_too_much(operation, text, parent.text):
            return attempt("too many words")
        gained = await self._gain(parent.text, text, seed)
        if gained is not True:
            return attempt("no gain" if gained is False else "unanswered")
        found = await answer(
            self.teacher, self.judging, text, self.answers, self.sampling, seed_of(seed, "row")
        )
        return attempt(found.fault, found)

    def _grew_too_much(self, operation: Operation, child: str, parent: str) -> bool:
        most = self.config.max_added_words
        bounded = operation in IN_DEPTH and operation != "complicate"
        return bounded and most is not None and grew_by(child, parent) > most

    async def _gain(self, parent: str, child: str, seed: int) -> bool | None:
        """Whether the child asks for more or for something else; None when nobody could say."""
        if " ".join(parent.split()) == " ".join(child.split()):
            return False
        sampling = self.sampling.model_copy(update={"temperature": 0.0, "top_p": None})
        ask = ask_of("judge gain", judging_gain(parent, child), sampling, seed_of(seed, "gain"))
        found = await ask_for(self.teacher, ask, Sameness)
        return None if found is None else not found.same


class Sameness(BaseModel):
    """The teacher's judgement of two instructions."""

    model_config = ConfigDict(frozen=True, strict=True)

    same: bool


def _instruction_in(text: str) -> str:
    """The instruction without what models put around it: the heading repeated, quotes."""
    text = text.strip().removeprefix(EVOLVED).strip()
    if len(text) > 1 and text[0] == text[-1] == '"' and text.count('"') == 2:
        text = text[1:-1].strip()
    return text
