"""Self-Instruct and Alpaca: the pool grows by what is new and usable, and by nothing else."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from pydantic import ValidationError
from scripted_teacher import ScriptedTeacher

from data_prep.generate.asking import GenerationStopped, SamplingConfig
from data_prep.generate.instances import InstancesConfig, Made
from data_prep.generate.instruction_filters import InstructionFilters
from data_prep.generate.judging import JudgeConfig
from data_prep.generate.novelty import NoveltyIndex
from data_prep.generate.results import of_self_instruct
from data_prep.generate.self_instruct import NothingNew, Proposal, SelfInstruct, SelfInstructConfig
from data_prep.generate.tasks import Instance, Task
from data_prep.generate.teacher import JournalTeacher

Open = Callable[..., AbstractAsyncContextManager[JournalTeacher]]
Outcome = tuple[list[Proposal], list[Made], GenerationStopped | None]

SEEDS = [
    Task(f"seed {n}", text, (Instance("", f"output {n}"),), is_classification=n % 3 == 0)
    for n, text in enumerate(
        [
            "Is this review positive or negative?",
            "Write a letter to your landlord about the heating",
            "Which of these animals does not belong?",
            "What is the relation between the given pairs?",
            "Give me a recipe with three ingredients",
            "Turn this sentence into a question",
            "Sort these numbers from the largest to the smallest",
            "Explain to a child why the sky is blue",
            "Suggest a name for a coffee shop",
        ]
    )
]


def run(
    open_teacher: Open, scripted: ScriptedTeacher, config: SelfInstructConfig, **settings: object
) -> Outcome:
    async def all_of_it() -> Outcome:
        async with open_teacher(scripted, **settings) as teacher:
            making = SelfInstruct(teacher, teacher, config, SamplingConfig(), 0)
            return await making.run(SEEDS)

    return asyncio.run(all_of_it())


def test_every_new_instruction_is_unlike_all_before(open_teacher: Open):
    proposals, made, stopped = run(
        open_teacher, ScriptedTeacher(trouble=True), SelfInstructConfig(instructions=25, ahead=4)
    )
    assert stopped is None
    index = NoveltyIndex()
    for seed in SEEDS:
        index.add(seed.instruction)
    new = [each for each in proposals if each.reason is None]
    assert len(new) == len(made) == 25
    for proposal in proposals:
        if proposal.reason is None:
            assert index.nearest(proposal.task.instruction) is None
            index.add(proposal.task.instruction)
        elif proposal.reason == "not new":
            near = index.nearest(proposal.task.instruction)
            assert near is not None
            assert proposal.nearest[1] == round(near.score, 4) >= 0.7


def test_each_filter_takes_out_what_was_planted(open_teacher: Open):
    proposals, _, _ = run(
        open_teacher, ScriptedTeacher(), SelfInstructConfig(instructions=20, ahead=4)
    )
    calls = {each.call for each in proposals}
    whole = [each for each in proposals if each.call != max(calls)]
    reasons = Counter(each.reason for each in whole)
    for planted in ("not for a language model", "too short", "common beginning"):
        assert reasons[planted] == len(calls) - 1
    assert reasons["not new"] >= len(calls) - 1  # one repeats a task that it was shown


def test_the_same_seed_gives_the_same_whatever_the_order_of_answers(
    open_teacher: Open, tmp_path: Path
):
    config = SelfInstructConfig(instructions=15, ahead=6)
    first = run(
        open_teacher,
        ScriptedTeacher(),
        config,
        journal=tmp_path / "1.jsonl",
        limits={"concurrency": 1},
    )
    second = run(open_teacher, ScriptedTeacher(trouble=True), config, journal=tmp_path / "2.jsonl")
    assert first == second


def test_examples_are_of_seeds_and_of_what_was_made(open_teacher: Open):
    proposals, _, _ = run(
        open_teacher, ScriptedTeacher(), SelfInstructConfig(instructions=25, ahead=2)
    )
    shown = {each.call: each.shown for each in proposals}
    assert all(len(ids) == len(set(ids)) == 8 for ids in shown.values())
    made = {call: sum(not name.startswith("seed") for name in ids) for call, ids in shown.items()}
    assert (made[0], made[1]) == (0, 0)
    assert {made[call] for call in made if call > 3} == {2}
    order = [each.task.id for each in proposals if each.reason is None]
    for call, ids in shown.items():
        before = {name for name in order if int(name.split("-")[0]) <= call - 2}
        assert {name for name in ids if not name.startswith("seed")} <= before


def test_cases_are_label_first_for_classification_and_contradictions_go(open_teacher: Open):
    scripted = ScriptedTeacher()
    _, made, _ = run(open_teacher, scripted, SelfInstructConfig(instructions=40))
    for each in made:
        number = int(each.task.instruction.split("number ")[1].split()[0])
        if number % 11 == 0:
            assert each.reason == "no instances"
        elif each.task.instruction.startswith("classify"):
            assert each.task.is_classification
            assert [case.instance for case in each.cases] == [
                Instance("whale", "big"),
                Instance("mouse", "small"),
            ]
        elif number % 7 == 0:
            assert each.reason == "no instances"
        else:
            (case,) = each.cases
            assert case.instance.input == ""
    asked = [body["messages"][-1]["content"] for body in scripted.bodies]
    label_first = [text for text in asked if text.startswith("Write examples of a classification")]
    assert label_first
    assert all("Label: output" in text for text in label_first)


def test_alpaca_takes_instruction_input_and_output_of_one_call(open_teacher: Open):
    scripted = ScriptedTeacher()
    proposals, made, stopped = run(
        open_teacher, scripted, SelfInstructConfig(variant="alpaca", instructions=15, ahead=2)
    )
    assert stopped is None
    assert all(body["messages"][-1]["content"].startswith("Make up") for body in scripted.bodies)
    rows = of_self_instruct(proposals, made, "alpaca").rows
    assert len(rows) == 15
    assert {row["output"] for row in rows} == {"All about it.", "Done."}
    assert {row["input"] for row in rows} == {"", "some text"}
    assert not any("cut in the" in each.task.instruction for each in proposals)
    assert all(len(each.shown) == 3 for each in proposals)


def test_a_judge_takes_out_poor_cases(open_teacher: Open):
    config = SelfInstructConfig(
        instructions=20, instances=InstancesConfig(judge=JudgeConfig(min_quality=8))
    )
    proposals, made, _ = run(open_teacher, ScriptedTeacher(), config)
    generated = of_self_instruct(proposals, made, "self-instruct")
    assert {row["scores"]["quality"] for row in generated.rows} <= {8, 9}
    low = [row for row in generated.left_out if row["lineage"]["verdict"] == "low score"]
    assert low
    assert all(row["scores"]["quality"] < 8 for row in low)


def test_nothing_is_lost_between_proposals_and_rows(open_teacher: Open):
    proposals, made, _ = run(open_teacher, ScriptedTeacher(), SelfInstructConfig(instructions=30))
    generated = of_self_instruct(proposals, made, "self-instruct")
    refused = [each for each in proposals if each.reason]
    cases = sum(len(each.cases) for each in made)
    without = [each for each in made if each.reason]
    assert len(generated.rows) + len(generated.left_out) == len(refused) + cases + len(without)
    assert all(json.dumps(row) for row in generated.rows)


def test_a_teacher_that_says_nothing_new_ends_the_run(
    open_teacher: Open, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "scripted_teacher._new_tasks", lambda prompt, seed: "10. Tell me all about number 8"
    )
    config = SelfInstructConfig(instructions=5, give_up_after=6, ahead=2)
    proposals, made, stopped = run(open_teacher, ScriptedTeacher(), config)
    assert isinstance(stopped, NothingNew)
    assert "nothing new in 6 calls in a row: 1 of 5 instructions" in str(stopped)
    assert len(made) == 1
    assert len({each.call for each in proposals}) == 7


def test_a_spent_budget_keeps_what_was_made(open_teacher: Open):
    proposals, made, stopped = run(
        open_teacher,
        ScriptedTeacher(),
        SelfInstructConfig(instructions=50, ahead=4),
        budget={"calls": 30},
        limits={"concurrency": 4},
    )
    assert "calls 30 of 30" in str(stopped)
    assert proposals
    assert len(made) < sum(each.reason is None for each in proposals)


@pytest.mark.parametrize(
    ("instruction", "fault"),
    [
        ("Tell me about cats", None),
        ("Tell me more", "too short"),
        ("word " * 151, "too long"),
        ("Draw a cat on the wall", "not for a language model"),
        ("Describe the attached Image to me", "not for a language model"),
        ("Summarise the imagery of this poem", None),
        ("Write a program that sorts numbers", "common beginning"),
        ("(b) the other one of these", "begins with punctuation"),
        ("Écris une lettre à ton ami", "not English"),
    ],
)
def test_the_published_filters(instruction: str, fault: str | None):
    assert InstructionFilters().fault_of(instruction) == fault


def test_other_languages_may_be_let_in():
    filters = InstructionFilters(ascii_beginning=False, min_words=1)
    assert filters.fault_of("写一封信") is None


def test_no_examples_at_all_are_refused():
    with pytest.raises(ValidationError, match="show at least one"):
        SelfInstructConfig(human_examples=0, generated_examples=0)
