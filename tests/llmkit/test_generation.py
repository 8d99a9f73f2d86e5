"""``llmkit generate``: from a recipe to a folder, stopped and gone on with at any point."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_teacher import ScriptedTeacher, serving
from typer.testing import CliRunner

from data_prep.reading import ReadRow, read_rows
from data_prep.sources.config import SourceConfig
from llmkit.cli import app

FILES = [
    "figures.json",
    "journal.jsonl",
    "left_out.jsonl",
    "recipe.yaml",
    "report.html",
    "rows.jsonl",
]
SEEDS = [f"Tell me about topic {number}" for number in range(8)] + ["leak it", "refused to me"]

RECIPE = """
name: test
seeds: [{{path: {seeds}}}]
teacher: {{model: m, base_url: "{url}", limits: {{concurrency: {concurrency}}}}}
checks: {{coverage: null}}
{more}
"""


@pytest.fixture
def scripted() -> ScriptedTeacher:
    return ScriptedTeacher()


@pytest.fixture
def recipe(tmp_path: Path, scripted: ScriptedTeacher) -> Iterator[Path]:
    """A recipe whose teacher is the scripted one."""
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text("".join(json.dumps({"instruction": each}) + "\n" for each in SEEDS))
    path = tmp_path / "recipe.yaml"
    with serving(scripted) as url:
        path.write_text(RECIPE.format(seeds=seeds, url=url, concurrency=4, more=""))
        yield path


def generate(method: str, recipe: Path, *words: str) -> tuple[int, str]:
    out = str(recipe.parent / "out")
    done = CliRunner().invoke(app, ["generate", method, str(recipe), "--out", out, *words])
    if done.exception and not isinstance(done.exception, SystemExit):
        code = getattr(done.exception, "exit_code", None)
        if code is None:
            raise done.exception
        return code, str(done.exception)
    return done.exit_code, done.output


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out" / "test"


def test_a_generation_writes_rows_and_all_that_is_known_of_them(recipe: Path, folder: Path):
    code, said = generate("evol-instruct", recipe, "evolve={rounds: 2}", "answers={judge: {}}")
    assert code == 0
    assert sorted(path.name for path in folder.iterdir()) == FILES
    rows, left_out = lines(folder / "rows.jsonl"), lines(folder / "left_out.jsonl")
    assert (len(rows), len(left_out)) == (16, 4)
    assert rows[0]["lineage"] | {"operation": ""} == {
        "method": "evol-instruct",
        "id": "seeds.jsonl:1-1",
        "seed": "seeds.jsonl:1",
        "round": 1,
        "operation": "",
        "parent": "seeds.jsonl:1",
        "verdict": "accepted",
    }
    figures = json.loads((folder / "figures.json").read_text("utf-8"))
    assert figures["reasons"] == {"leaked": 2, "refusal": 2}
    calls = figures["spent"][0]["calls_by_purpose"]
    assert calls["answer"] == 18
    assert calls["judge"] == 16
    assert sum(sum(each["difficulty"]) for each in figures["scores"]) == 16
    attempts = sum(sum(each["verdicts"].values()) for each in figures["yield"])
    assert attempts == len(SEEDS) * 2
    assert "16 rows from 10 seeds" in said
    assert "left out 4: leaked 2, refusal 2" in said
    page = (folder / "report.html").read_text("utf-8")
    assert "leaked" in page
    assert rows[0]["instruction"] in page
    assert SEEDS[0] in page, "a parent stands beside its child"


def test_a_spent_budget_leaves_few_instructions_half_done(recipe: Path, folder: Path):
    words = ["teacher.limits.concurrency=1", "teacher.budget.calls=13", "evolve={rounds: 1}"]
    code, said = generate("evol-instruct", recipe, *words)
    assert code == 0
    assert "the budget is spent: calls 13 of 13" in said
    assert len(lines(folder / "rows.jsonl")) >= 13 // 3 - 1


def test_rows_are_a_source_of_a_training_recipe(recipe: Path, folder: Path):
    generate("evol-instruct", recipe, "evolve={rounds: 1}")
    read = list(read_rows(SourceConfig(path=str(folder / "rows.jsonl")), "refuse"))
    assert len(read) == 8
    assert all(isinstance(each, ReadRow) and each.format.startswith("alpaca") for each in read)


def test_a_second_run_asks_nothing_and_gives_the_same(
    recipe: Path, folder: Path, scripted: ScriptedTeacher
):
    generate("evol-instruct", recipe)
    before = {name: (folder / name).read_bytes() for name in ("rows.jsonl", "left_out.jsonl")}
    asked = sum(scripted.received.values())
    generate("evol-instruct", recipe)
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert sum(scripted.received.values()) == asked


def test_another_round_asks_only_for_what_is_new(
    recipe: Path, folder: Path, scripted: ScriptedTeacher
):
    generate("evol-instruct", recipe, "evolve={rounds: 2}")
    first, asked = lines(folder / "rows.jsonl"), sum(scripted.received.values())
    generate("evol-instruct", recipe, "evolve={rounds: 3}")
    assert lines(folder / "rows.jsonl")[: len(first)] == first
    assert max(scripted.answered.values()) == 1
    assert sum(scripted.received.values()) < 1.6 * asked


def test_answers_are_given_to_instructions_that_are_there(recipe: Path, folder: Path):
    code, said = generate("answers", recipe, "answers={best_of: 3, judge: {}}")
    assert code == 0
    rows = lines(folder / "rows.jsonl")
    assert [row["instruction"] for row in rows] == SEEDS[:9]
    assert lines(folder / "left_out.jsonl")[0]["lineage"]["verdict"] == "refusal"


def test_self_instruct_and_alpaca_write_rows(recipe: Path, folder: Path):
    for variant in ("self-instruct", "alpaca"):
        words = f"self_instruct={{variant: {variant}, instructions: 12, ahead: 2}}"
        code, _ = generate("self-instruct", recipe, words, f"name={variant}")
        assert code == 0
        rows = lines(folder.parent / variant / "rows.jsonl")
        assert len({row["instruction"] for row in rows}) > 8
        assert {row["lineage"]["method"] for row in rows} == {variant}


def test_a_judge_may_be_another_model(recipe: Path, folder: Path):
    other = ScriptedTeacher()
    with serving(other) as url:
        judge = f"answers={{judge: {{teacher: {{model: other, base_url: '{url}'}}}}}}"
        code, said = generate("evol-instruct", recipe, judge, "evolve={rounds: 1}")
    assert code == 0
    assert {body["model"] for body in other.bodies} == {"other"}
    assert len(other.bodies) == 8 == len(lines(folder / "judge.jsonl")) / 2
    assert "other: 8 calls" in said


def test_a_budget_ends_the_run_well_and_says_how_to_go_on(recipe: Path, folder: Path):
    code, said = generate("evol-instruct", recipe, "teacher.budget={calls: 25}")
    assert code == 0
    assert "calls 25 of 25. To go on, raise teacher.budget.calls" in said
    rows = lines(folder / "rows.jsonl")
    assert rows
    code, said = generate("evol-instruct", recipe, "teacher.budget={calls: 10000}")
    assert "budget is spent" not in said
    assert len(lines(folder / "rows.jsonl")) == 8 * 4


def test_rows_stay_when_more_are_wanted_and_nobody_answers(
    recipe: Path, folder: Path, scripted: ScriptedTeacher
):
    words = ["teacher.limits.concurrency=1"]
    generate("evol-instruct", recipe, *words, "evolve={rounds: 1}")
    before = lines(folder / "rows.jsonl")
    scripted.refuse_with = 401, {"message": "wrong key"}
    code, _ = generate("evol-instruct", recipe, *words, "evolve={rounds: 2}")
    assert code == 1
    assert lines(folder / "rows.jsonl") == before


def test_what_an_endpoint_refused_is_told_and_asked_otherwise_when_the_recipe_is_mended(
    recipe: Path, folder: Path, scripted: ScriptedTeacher
):
    scripted.refuse_with = 400, {"message": "unknown field: seed"}
    code, said = generate("evol-instruct", recipe, "evolve={rounds: 1}")
    assert code == 0
    assert "400 unknown field: seed" in said
    assert not lines(folder / "rows.jsonl")
    scripted.refuse_with = None
    words = ["evolve={rounds: 1}", "teacher.send_seed=false"]
    assert generate("evol-instruct", recipe, *words)[0] == 0
    assert len(lines(folder / "rows.jsonl")) == 8


def test_a_judge_that_stops_stops_the_teacher(
    recipe: Path, folder: Path, scripted: ScriptedTeacher
):
    judge = "{teacher: {model: j, base_url: 'http://127.0.0.1:9/v1', limits: {retries: 0}}}"
    words = [f"answers={{judge: {judge}}}", "teacher.limits.concurrency=1", "evolve={rounds: 1}"]
    code, said = generate("evol-instruct", recipe, *words)
    assert code == 1
    assert "no connection" in said
    assert sum(scripted.received.values()) <= 6, "a row takes three calls; two are on their way"


def test_costs_are_told(recipe: Path, folder: Path):
    prices = "teacher.prices={input: 1000000, output: 2000000, currency: EUR}"
    _, said = generate("answers", recipe, prices)
    (spent,) = json.loads((folder / "figures.json").read_text("utf-8"))["spent"]
    assert spent["cost"] == spent["prompt_tokens"] + 2 * spent["completion_tokens"]
    assert f"{spent['cost']:.4f} EUR" in said


def test_a_key_that_is_refused_stops_the_run(recipe: Path, folder: Path, scripted: ScriptedTeacher):
    scripted.refuse_with = 401, {"message": "wrong key sk-1234"}
    code, said = generate("evol-instruct", recipe)
    assert code == 1
    assert "teacher.api_key_env" in said
    assert sum(scripted.received.values()) <= 4


@pytest.mark.parametrize(
    ("method", "words", "said"),
    [
        ("evol-instruct", ["self_instruct={}"], "section 'self_instruct'"),
        ("self-instruct", ["evolve={}"], "Run `llmkit generate evol-instruct"),
        ("answers", ["answers={best_of: 2}"], "needs a judge"),
        ("answers", ["serve={}"], "leave one of them out"),
        ("evol-instruct", ["evolve={rounds: 0}"], "evolve.rounds"),
        ("evol-instruct", ["evolve={operatons: {}}"], "did you mean"),
        ("evol-instruct", ["teacher.base_url=localhost:8000"], "teacher.base_url"),
        ("evol-instruct", ["teacher.budget={cost: 1}"], "budget.cost needs prices"),
        ("evol-instruct", ["seeds=[]"], "seeds"),
        (
            "evol-instruct",
            ["teacher.api_key_env=LLMKIT_NO_SUCH_KEY"],
            "LLMKIT_NO_SUCH_KEY is not set",
        ),
        ("evol-instruct", ["seeds=[{path: nowhere.jsonl}]"], "nowhere.jsonl"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_asked(
    recipe: Path, scripted: ScriptedTeacher, method: str, words: list[str], said: str
):
    code, output = generate(method, recipe, *words)
    assert code == 2
    assert said in output
    assert not scripted.received


def start(recipe: Path, *words: str) -> subprocess.Popen[str]:
    heeds = (  # what is started in the background ignores SIGINT, and its children do
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('llmkit', run_name='__main__', alter_sys=True)"
    )
    command = [sys.executable, "-c", heeds, "generate", "evol-instruct", str(recipe)]
    return subprocess.Popen(
        [*command, "--out", str(recipe.parent / "out"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )


def answered_in(journal: Path) -> int:
    return journal.read_bytes().count(b'{"answered"') if journal.is_file() else 0


def test_killed_twenty_times_no_call_is_repeated_and_no_row_lost(
    recipe: Path, folder: Path, scripted: ScriptedTeacher
):
    generate("evol-instruct", recipe, "name=whole")
    whole = (folder.parent / "whole" / "rows.jsonl").read_bytes()
    all_calls = answered_in(folder.parent / "whole" / "journal.jsonl")
    scripted.answered.clear()
    scripted.latency = 0.02
    rng = random.Random(5)
    journal = folder / "journal.jsonl"
    kills = lost = 0
    for _ in range(20):
        running = start(recipe)
        until = answered_in(journal) + rng.randint(1, all_calls // 25)
        while answered_in(journal) < until and running.poll() is None:
            time.sleep(0.005)
        kills += running.poll() is None
        running.kill()
        running.communicate()
        lost += journal.read_bytes().count(b'{"sent"') - answered_in(journal) - lost
    assert kills == 20
    code, _ = generate("evol-instruct", recipe)
    assert code == 0
    assert (folder / "rows.jsonl").read_bytes() == whole
    assert answered_in(journal) == all_calls
    # Calls that were under way when a process died are made again; nothing else is.
    repeated = sum(count - 1 for count in scripted.answered.values())
    assert repeated <= lost <= 20 * 4
    assert len(scripted.answered) == all_calls


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_finishes_its_calls_and_says_how_to_go_on(
    recipe: Path, folder: Path, scripted: ScriptedTeacher, sent: signal.Signals, code: int
):
    scripted.latency = 0.3
    running = start(recipe)
    while sum(scripted.answered.values()) < 6:
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(sent)
    said, _ = running.communicate(timeout=20)
    assert running.returncode == code
    assert "calls under way" in said
    assert "the same command goes on where it was" in said
    assert "Traceback" not in said
    assert answered_in(folder / "journal.jsonl") == sum(scripted.answered.values())
    scripted.latency = 0
    assert generate("evol-instruct", recipe)[0] == 0
    assert max(scripted.answered.values()) == 1


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_leaves_the_calls_under_way(
    recipe: Path, folder: Path, scripted: ScriptedTeacher, sent: signal.Signals
):
    scripted.latency = 8
    running = start(recipe)
    while not scripted.received:
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(sent)
    time.sleep(1)
    assert running.poll() is None
    running.send_signal(sent)
    said, _ = running.communicate(timeout=20)
    assert running.returncode in (130, 143)
    assert "Traceback" not in said
    scripted.latency = 0
    assert generate("evol-instruct", recipe)[0] == 0
    assert json.loads((folder / "figures.json").read_text("utf-8"))["calls_lost_when_killed"] == 4


def test_two_runs_into_one_folder_are_refused(
    recipe: Path, folder: Path, scripted: ScriptedTeacher
):
    scripted.latency = 0.3
    running = start(recipe)
    while not scripted.received:
        assert running.poll() is None
        time.sleep(0.01)
    code, said = generate("evol-instruct", recipe)
    running.kill()
    running.communicate()
    assert code == 2
    assert "another process is generating into this folder" in said
