"""The journal: answers are on disk before they are used, and nothing is asked twice."""

import asyncio
import json
from pathlib import Path

import pytest

from data_prep.errors import DataError
from data_prep.generate.asking import Ask, Reply, SamplingConfig, ask_of
from data_prep.generate.journal import Journal


def an_ask(number: int = 0) -> Ask:
    return ask_of("deepen", f"question {number}", SamplingConfig(), number)


def keep(journal: Journal, number: int, text: str = "fine") -> Reply:
    reply = Reply(text, "stop", 10 + number, 3)
    key = an_ask(number).key("m")
    journal.send(key, "deepen")
    asyncio.run(journal.answer(key, an_ask(number), reply, 0.5))
    return reply


def test_an_answer_is_found_again_by_another_process(tmp_path: Path):
    path = tmp_path / "new" / "journal.jsonl"
    with Journal(path) as journal:
        replies = [keep(journal, number, f"answer {number} \u2028 ä") for number in range(5)]
    with Journal(path) as journal:
        assert [journal.find(an_ask(n).key("m")) for n in range(5)] == replies
        assert journal.find(an_ask(5).key("m")) is None
        assert journal.find(an_ask(0).key("other model")) is None
        assert (journal.spent.calls, journal.spent.prompt_tokens) == (5, 60)
        assert journal.spent.completion_tokens == 15
        assert journal.spent.by_purpose == {"deepen": 5}
        assert journal.without_answer == 0


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_taken_off_and_its_call_was_lost(tmp_path: Path, cut: int):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        keep(journal, 0)
        keep(journal, 1)
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(path) as journal:
        assert journal.find(an_ask(0).key("m")) is not None
        assert journal.find(an_ask(1).key("m")) is None
        assert journal.without_answer == 1
        assert keep(journal, 1) == journal.find(an_ask(1).key("m"))
    assert all(json.loads(line) for line in path.read_text("utf-8").splitlines())


def test_a_damaged_line_inside_is_refused_with_its_number(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        keep(journal, 0)
        keep(journal, 1)
    lines = path.read_text("utf-8").splitlines()
    path.write_text("\n".join([lines[0], lines[1][:50], *lines[2:]]) + "\n", "utf-8")
    with pytest.raises(DataError, match=r"journal\.jsonl:2: not a line of a journal"):
        Journal(path)


def test_two_processes_do_not_write_into_one_journal(tmp_path: Path):
    with Journal(tmp_path / "journal.jsonl"), pytest.raises(DataError, match="another process"):
        Journal(tmp_path / "journal.jsonl")


def test_a_call_that_failed_is_no_lost_one(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.send("a", "deepen")
        journal.send("b", "deepen")
        journal.fail("a")
        assert journal.without_answer == 1
    with Journal(path) as journal:
        assert journal.without_answer == 1


def test_answers_that_come_together_share_a_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    flushes = []
    monkeypatch.setattr("os.fdatasync", lambda file: flushes.append(file))

    async def all_at_once(journal: Journal) -> None:
        reply = Reply("fine", "stop", 1, 1)
        await asyncio.gather(
            *(journal.answer(f"key {n}", an_ask(n), reply, 0.1) for n in range(100))
        )

    with Journal(tmp_path / "journal.jsonl") as journal:
        asyncio.run(all_at_once(journal))
        assert journal.spent.calls == 100
    assert 1 <= len(flushes) <= 3


def test_no_answer_is_used_before_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(_file: int) -> None:
        raise OSError(5, "Input/output error")

    with Journal(tmp_path / "journal.jsonl") as journal:
        monkeypatch.setattr("os.fdatasync", broken)
        with pytest.raises(OSError, match="Input/output"):
            keep(journal, 0)
        assert journal.find(an_ask(0).key("m")) is None
        assert journal.spent.calls == 1


def test_the_key_is_of_all_that_decides_the_answer():
    ask = an_ask()
    others = [
        ask_of("deepen", "question 1", SamplingConfig(), 0),
        ask_of("deepen", "question 0", SamplingConfig(temperature=0.1), 0),
        ask_of("deepen", "question 0", SamplingConfig(), 1),
        ask_of("deepen", "question 0", SamplingConfig(), 0, system="Be kind."),
        ask_of("deepen", "question 0", SamplingConfig(), 0, schema={"type": "object"}),
    ]
    keys = {each.key("m") for each in (ask, *others)} | {ask.key("n")}
    assert len(keys) == 7
    assert ask_of("breadth", "question 0", SamplingConfig(), 0).key("m") == ask.key("m")
