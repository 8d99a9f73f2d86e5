"""Evol-Instruct: every elimination counted exactly, whatever the network does."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from pydantic import ValidationError
from scripted_teacher import ScriptedTeacher

from data_prep.generate.answers import AnswersConfig
from data_prep.generate.asking import SamplingConfig
from data_prep.generate.evol_instruct import (
    Attempt,
    EvolConfig,
    Evolution,
    Instruction,
    OperationWeights,
)
from data_prep.generate.evol_prompts import OPERATIONS
from data_prep.generate.judging import JudgeConfig
from data_prep.generate.results import of_evolution
from data_prep.generate.teacher import JournalTeacher

Open = Callable[..., AbstractAsyncContextManager[JournalTeacher]]

ROUNDS = 3
PLANTED = {
    "silent": "unanswered",
    "cut evolution": "unanswered",
    "mumbler": "unanswered",
    "leak": "leaked",
    "copycat": "no gain",
    "equal": "no gain",
    "refused": "refusal",
    "blank": "empty answer",
    "unfinished": "cut answer",
    "poor": "low score",
    "unscorable": "unscored",
}
"""What always goes wrong with an instruction that has the words."""
GOOD = [f"Tell me about topic {number}" for number in range(12)] + ["A sloppy judgement is mended"]
ANSWERS = AnswersConfig(judge=JudgeConfig(min_quality=3))


def pool() -> list[Instruction]:
    texts = [*GOOD, *(f"Please give me the {words} thing" for words in PLANTED)]
    return [Instruction(f"s{n}", text, f"s{n}") for n, text in enumerate(texts)]


async def evolve(
    teacher: JournalTeacher, config: EvolConfig, answers: AnswersConfig = ANSWERS, seed: int = 0
) -> list[Attempt]:
    evolution = Evolution(teacher, teacher, config, answers, SamplingConfig(), seed, 8)
    attempts, stopped = await evolution.run(pool())
    assert stopped is None
    return attempts


def run(open_teacher: Open, scripted: ScriptedTeacher, *arguments, **settings) -> list[Attempt]:
    async def all_of_it() -> list[Attempt]:
        async with open_teacher(scripted, **settings) as teacher:
            return await evolve(teacher, *arguments)

    return asyncio.run(all_of_it())


def test_each_elimination_is_counted_exactly_on_a_bad_network(open_teacher: Open):
    scripted = ScriptedTeacher(trouble=True)
    attempts = run(open_teacher, scripted, EvolConfig(rounds=ROUNDS))
    expected = Counter({None: len(GOOD) * ROUNDS})
    for reason in PLANTED.values():
        expected[reason] += ROUNDS
    assert Counter(each.reason for each in attempts) == expected
    assert set(scripted.answered.values()) == {1}
    made = of_evolution(attempts)
    assert len(made.rows) == len(GOOD) * ROUNDS
    assert len(made.rows) + len(made.left_out) == len(pool()) * ROUNDS


def test_a_child_follows_its_parent_and_a_failure_leaves_the_parent(open_teacher: Open):
    attempts = run(open_teacher, ScriptedTeacher(), EvolConfig(rounds=ROUNDS))
    of_good = [each for each in attempts if each.number == 0]
    assert [each.round for each in of_good] == [1, 2, 3]
    assert [each.parent.id for each in of_good] == ["s0", "s0-1", "s0-2"]
    assert of_good[2].child.text.count("explain step") == 3
    (bad,) = {each.parent.id for each in attempts if each.number == len(GOOD)}
    assert bad == f"s{len(GOOD)}"
    texts = {row["lineage"]["id"]: row["instruction"] for row in of_evolution(attempts).rows}
    for row in of_evolution(attempts).rows:
        parent = row["lineage"]["parent"]
        if parent in texts:
            assert row["instruction"].startswith(texts[parent])


def test_the_same_seed_gives_the_same_whatever_the_order_of_answers(
    open_teacher: Open, tmp_path: Path
):
    config = EvolConfig(rounds=2)
    runs = [
        run(
            open_teacher,
            ScriptedTeacher(trouble=trouble),
            config,
            journal=tmp_path / f"{width}.jsonl",
            limits={"concurrency": width},
        )
        for width, trouble in ((1, False), (32, True))
    ]
    assert runs[0] == runs[1]
    other = run(
        open_teacher, ScriptedTeacher(), config, ANSWERS, 1, journal=tmp_path / "other.jsonl"
    )
    assert [each.operation for each in other] != [each.operation for each in runs[0]]


def test_operations_are_drawn_by_their_weights(open_teacher: Open):
    weights = OperationWeights(
        constraints=3, deepen=1, concretise=0, reasoning=0, complicate=0, breadth=0
    )
    config = EvolConfig(rounds=40, operations=weights)
    drawn = Counter(
        each.operation for each in run(open_teacher, ScriptedTeacher(), config, AnswersConfig())
    )
    assert set(drawn) == {"constraints", "deepen"}
    share = drawn["constraints"] / drawn.total()
    assert 0.7 < share < 0.8  # of 960 draws, mean 0.75 and deviation 0.014


@pytest.mark.parametrize(("operation", "bounded"), [("deepen", True), ("complicate", False)])
def test_growth_in_depth_is_bounded_but_not_of_data(
    open_teacher: Open, operation: str, bounded: bool
):
    only = OperationWeights(**{name: float(name == operation) for name in OPERATIONS})

    async def endless() -> Attempt:
        async with open_teacher(ScriptedTeacher()) as teacher:
            config = EvolConfig(rounds=1, operations=only)
            evolution = Evolution(teacher, teacher, config, AnswersConfig(), SamplingConfig(), 0, 8)
            (attempt,), _ = await evolution.run([Instruction("a", "an endless tale", "a")])
            return attempt

    assert asyncio.run(endless()).reason == ("too many words" if bounded else None)


def test_the_best_of_several_answers_is_kept(open_teacher: Open):
    attempts = run(
        open_teacher,
        ScriptedTeacher(),
        EvolConfig(rounds=1),
        AnswersConfig(best_of=4, judge=JudgeConfig()),
    )
    good = [each for each in attempts if each.reason is None]
    assert {each.scores.quality for each in good if each.scores} <= set(range(1, 11))
    single = run(open_teacher, ScriptedTeacher(), EvolConfig(rounds=1))
    first = {each.number: each.scores.quality for each in single if each.reason is None}
    assert all(each.scores.quality >= first[each.number] for each in good if each.number in first)


def test_a_spent_budget_keeps_the_attempts_that_ended(open_teacher: Open):
    async def stopped() -> tuple[list[Attempt], str]:
        async with open_teacher(ScriptedTeacher(), budget={"calls": 40}) as teacher:
            evolution = Evolution(teacher, teacher, EvolConfig(), ANSWERS, SamplingConfig(), 0, 8)
            attempts, error = await evolution.run(pool())
            return attempts, str(error)

    attempts, said = asyncio.run(stopped())
    assert 0 < len(attempts) < 24
    assert "budget is spent: calls 40 of 40" in said


def test_weights_that_are_all_nothing_are_refused():
    with pytest.raises(ValidationError, match="all weights are 0"):
        OperationWeights(**dict.fromkeys(OPERATIONS, 0.0))
    with pytest.raises(ValidationError, match="the less first"):
        EvolConfig(added_words=(20, 10))
