"""The teacher: one call for each question, within the window and the budget."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from pydantic import ValidationError
from scripted_teacher import ScriptedTeacher

from data_prep.generate.asking import Ask, BudgetSpent, GenerationStopped, SamplingConfig, ask_of
from data_prep.generate.settings import TeacherConfig
from data_prep.generate.teacher import JournalTeacher

Open = Callable[..., AbstractAsyncContextManager[JournalTeacher]]


def an_ask(number: int) -> Ask:
    return ask_of("answer", f"Tell me about {number}", SamplingConfig(), number)


def test_what_was_answered_is_not_asked_again(open_teacher: Open):
    scripted = ScriptedTeacher()

    async def ask_all() -> tuple[list[str], int]:
        async with open_teacher(scripted) as teacher:
            replies = await asyncio.gather(*(teacher.ask(an_ask(n)) for n in range(20)))
            return [reply.text for reply in replies], teacher.replayed

    first, replayed = asyncio.run(ask_all())
    assert replayed == 0
    second, replayed = asyncio.run(ask_all())
    assert replayed == 20
    assert second == first
    assert sum(scripted.received.values()) == 20


def test_two_that_ask_the_same_share_one_call(open_teacher: Open):
    scripted = ScriptedTeacher(latency=0.05)

    async def twice() -> None:
        async with open_teacher(scripted) as teacher:
            one, other = await asyncio.gather(teacher.ask(an_ask(1)), teacher.ask(an_ask(1)))
            assert one == other

    asyncio.run(twice())
    assert sum(scripted.received.values()) == 1


def test_no_more_calls_are_under_way_than_the_window_holds(open_teacher: Open):
    scripted = ScriptedTeacher(latency=0.02)

    async def many() -> None:
        async with open_teacher(scripted, limits={"concurrency": 5}) as teacher:
            await asyncio.gather(*(teacher.ask(an_ask(n)) for n in range(40)))

    asyncio.run(many())
    assert scripted.most_at_once == 5


@pytest.mark.parametrize(
    "settings",
    [
        {"budget": {"tokens": 100}},
        {"budget": {"cost": 0.0001}, "prices": {"input": 1, "output": 1}},
    ],
)
def test_a_budget_is_exceeded_by_calls_under_way_at_most(
    open_teacher: Open, settings: dict[str, object]
):
    scripted = ScriptedTeacher(latency=0.01)

    async def until_spent() -> int:
        async with open_teacher(scripted, limits={"concurrency": 4}, **settings) as teacher:
            outcomes = await asyncio.gather(
                *(teacher.ask(an_ask(n)) for n in range(60)), return_exceptions=True
            )
            spent = [each for each in outcomes if isinstance(each, BudgetSpent)]
            assert "raise teacher.budget." in str(spent[0])
            assert spent[0].exit_code == 0
            return len(outcomes) - len(spent)

    answered = asyncio.run(until_spent())  # a call takes 4 + 7 tokens
    assert 100 <= answered * 11 < 100 + 4 * 11 + 11
    assert sum(scripted.received.values()) == answered


def test_a_budget_of_calls_is_kept_exactly_and_counts_earlier_runs(open_teacher: Open):
    scripted = ScriptedTeacher(latency=0.01)

    async def some(first: int, budget: int) -> int:
        async with open_teacher(scripted, budget={"calls": budget}) as teacher:
            outcomes = await asyncio.gather(
                *(teacher.ask(an_ask(n)) for n in range(first, first + 30)), return_exceptions=True
            )
            return sum(not isinstance(each, BaseException) for each in outcomes)

    assert asyncio.run(some(0, 7)) == 7
    assert asyncio.run(some(100, 7)) == 0
    assert asyncio.run(some(100, 9)) == 2


def test_calls_under_way_are_kept_when_whoever_asked_leaves(open_teacher: Open, tmp_path: Path):
    scripted = ScriptedTeacher(latency=0.2)

    async def leave() -> None:
        async with open_teacher(scripted, limits={"concurrency": 3}) as teacher:
            asking = [asyncio.create_task(teacher.ask(an_ask(n))) for n in range(10)]
            while scripted.at_once < 3:
                await asyncio.sleep(0.01)
            for each in asking:
                each.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            assert teacher.under_way == 3

    asyncio.run(leave())
    assert sum(scripted.answered.values()) == 3
    lines = (tmp_path / "journal.jsonl").read_text("utf-8")
    assert lines.count('"answered"') == 3


def test_after_a_stop_nothing_more_is_asked(open_teacher: Open):
    scripted = ScriptedTeacher()
    scripted.refuse_with = 401, {"message": "wrong key"}

    async def refused() -> None:
        async with open_teacher(scripted, limits={"concurrency": 1}) as teacher:
            outcomes = await asyncio.gather(
                *(teacher.ask(an_ask(n)) for n in range(10)), return_exceptions=True
            )
            assert all(isinstance(each, GenerationStopped) for each in outcomes)

    asyncio.run(refused())
    assert sum(scripted.received.values()) == 1


def test_a_full_disk_stops_the_run_and_says_where(
    open_teacher: Open, monkeypatch: pytest.MonkeyPatch
):
    scripted = ScriptedTeacher()

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    async def asked() -> None:
        async with open_teacher(scripted, limits={"concurrency": 1}) as teacher:
            monkeypatch.setattr("os.fdatasync", full)
            outcomes = await asyncio.gather(
                *(teacher.ask(an_ask(n)) for n in range(10)), return_exceptions=True
            )
            assert all(isinstance(each, GenerationStopped) for each in outcomes)
            assert "journal.jsonl: No space left on device" in str(outcomes[0])

    asyncio.run(asked())
    assert sum(scripted.received.values()) <= 2


def test_a_budget_of_cost_needs_prices():
    with pytest.raises(ValidationError, match=r"budget\.cost needs prices"):
        TeacherConfig.model_validate({"model": "m", "budget": {"cost": 1}})
