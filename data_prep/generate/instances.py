"""Cases of new instructions: inputs and outputs, made, filtered and judged."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from data_prep.formats.alpaca import asked
from data_prep.generate.asking import SamplingConfig, Teacher, ask_of, seed_of
from data_prep.generate.instruction_filters import usable
from data_prep.generate.judging import JudgeConfig, Scores, judge
from data_prep.generate.self_instruct_prompts import examples_of, instances_in, is_classification
from data_prep.generate.structured import ask_for
from data_prep.generate.tasks import Instance, Task


class InstancesConfig(BaseModel):
    """How cases of an instruction are made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    most: int = Field(default=5, ge=1, le=50)
    """Cases of one instruction."""
    examples: int = Field(default=4, ge=0, le=50)
    """Seeds with their cases that a call shows."""
    judge: JudgeConfig | None = None
    """Scores each case; null leaves them without."""


@dataclass(frozen=True, slots=True)
class Case:
    """An input and an output, and what the judge says."""

    instance: Instance
    scores: Scores | None
    reason: str | None
    """Why it is left out; None for a row."""


@dataclass(frozen=True, slots=True)
class Made:
    """What came of a new instruction."""

    task: Task
    cases: tuple[Case, ...]
    reason: str | None
    """Why there are none: ``unanswered``, ``no instances``."""


class Classification(BaseModel):
    """The teacher's judgement of an instruction."""

    model_config = ConfigDict(frozen=True, strict=True)

    classification: bool


class Instances:
    """Makes the cases of instructions."""

    def __init__(
        self,
        teacher: Teacher,
        judging: Teacher,
        config: InstancesConfig,
        sampling: SamplingConfig,
        seed: int,
        seeds: Sequence[Task],
    ) -> None:
        self._teacher = teacher
        self._judging = judging
        self._config = config
        self._sampling = sampling
        self._seed = seed
        self._seeds = [each for each in seeds if each.instances and _has_outputs(each)]

    async def make(self, task: Task) -> Made:
        """The cases of an instruction; those that came with it, or new ones.

        Raises:
            GenerationStopped: there are no more answers.
        """
        if task.instances:
            return await self._judged(task, task.instances)
        label = await self._is_classification(task)
        if label is None:
            return Made(task, (), "unanswered")
        shown = self._examples(task, labels=label)
        prompt = examples_of(task.instruction, shown, self._config.most, labels_first=label)
        ask = ask_of("instances", prompt, self._sampling, seed_of(self._seed, "instances", task.id))
        reply = await self._teacher.ask(ask)
        known = Task(task.id, task.instruction, (), label)
        if reply.finish_reason in ("refused", "content_filter"):
            return Made(known, (), "unanswered")
        return await self._judged(known, instances_in(reply.text, whole=reply.is_whole))

    async def _is_classification(self, task: Task) -> bool | None:
        known = [each for each in self._seeds if each.is_classification is not None]
        rng = random.Random(seed_of(self._seed, "labels"))
        yes, no = (
            [each for each in known if each.is_classification is is_] for is_ in (True, False)
        )
        shown = rng.sample(yes, min(_LABELLED, len(yes))) + rng.sample(no, min(_OTHERS, len(no)))
        rng.shuffle(shown)
        sampling = SamplingConfig(temperature=0, top_p=None, max_tokens=512)
        prompt = is_classification(task.instruction, shown)
        ask = ask_of("classification", prompt, sampling, seed_of(self._seed, "kind", task.id))
        found = await ask_for(self._teacher, ask, Classification)
        return None if found is None else found.classification

    def _examples(self, task: Task, *, labels: bool) -> list[Task]:
        fitting = [each for each in self._seeds if bool(each.is_classification) is labels]
        rng = random.Random(seed_of(self._seed, "shown", task.id))
        return rng.sample(fitting, min(self._config.examples, len(fitting)))

    async def _judged(self, task: Task, instances: Sequence[Instance]) -> Made:
        good = usable(instances)[: self._config.most]
        if not good:
            return Made(task, (), "no instances")
        cases = []
        for each in good:
            scores, reason = None, None
            if self._config.judge:
                question = asked(task.instruction, each.input).content
                scores = await judge(self._judging, question, each.output, self._config.judge)
                reason = self._config.judge.fault_of(scores)
            cases.append(Case(each, scores, reason))
        return Made(task, tuple(cases), None)


_LABELLED, _OTHERS = 12, 19
"""Seeds of each kind that are shown, as published."""


def _has_outputs(task: Task) -> bool:
    return all(each.output for each in task.instances)
