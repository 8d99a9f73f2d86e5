"""Answers to instructions: the best of several, judged, or why there is none."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from data_prep.generate.asking import Reply, SamplingConfig, Teacher, ask_of, seed_of
from data_prep.generate.faults import AnswerFault, fault_of
from data_prep.generate.judging import JudgeConfig, Scores, judge


class AnswersConfig(BaseModel):
    """How instructions are answered."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    best_of: int = Field(default=1, ge=1, le=64)
    """Answers to each instruction, of which the best by its judge's score is kept; more than one
    needs a judge."""
    system: str = ""
    """A system message before the instruction."""
    judge: JudgeConfig | None = None
    """Scores each answer; null leaves them without."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of asking for an answer."""

    text: str
    fault: AnswerFault | None
    """Why the answer is no good; None for a good one."""
    scores: Scores | None
    """Where a judge was asked and could be understood."""


async def answer(
    teacher: Teacher,
    judging: Teacher,
    instruction: str,
    config: AnswersConfig,
    sampling: SamplingConfig,
    seed: int,
) -> Answered:
    """Have an instruction answered.

    Args:
        teacher: who answers.
        judging: who scores.
        instruction: the question.
        config: how often, and what is good enough.
        sampling: of the answers.
        seed: decides the answers' seeds.

    Returns:
        The best answer without a fault, the first of equal ones; else the first answer with its
        fault.
    """
    tried = []
    for number in range(config.best_of):
        ask = ask_of(
            "answer", instruction, sampling, seed_of(seed, "answer", number), system=config.system
        )
        tried.append(await _judged(judging, instruction, await teacher.ask(ask), config))
    return best_of(tried)


async def _judged(
    judging: Teacher, instruction: str, reply: Reply, config: AnswersConfig
) -> Answered:
    fault = fault_of(reply)
    if fault or config.judge is None:
        return Answered(reply.text, fault, None)
    scores = await judge(judging, instruction, reply.text, config.judge)
    return Answered(reply.text, config.judge.fault_of(scores), scores)


def best_of(tried: Sequence[Answered]) -> Answered:
    """The best answer without a fault, the first of equal ones; else the first."""
    good = [each for each in tried if each.fault is None]
    if not good:
        return tried[0]
    return max(good, key=lambda each: each.scores.quality if each.scores else 0)
