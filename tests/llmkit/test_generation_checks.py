"""What is said of generated rows: repetitions, evaluation sets, coverage; and its page."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from data_prep.contamination.settings import EvaluationSet
from data_prep.generate.results import Generated
from llmkit.generation.checks import contaminated, coverage, distinct, repetitions
from llmkit.report.generation_report import render_generation_report

LONG = (
    "Explain to a new colleague why the nightly report of the warehouse is sometimes late, which "
    "tables it reads, and whom to call when it has not come by nine in the morning."
)


def row(number: int, instruction: str, output: str = "", **lineage: Any) -> dict[str, Any]:
    told = {"method": "answers", "id": f"r{number}", "seed": "s", "verdict": "accepted", **lineage}
    return {"instruction": instruction, "input": "", "output": output, "lineage": told}


def test_rows_that_repeat_others_are_found_as_prep_finds_them():
    rows = [
        row(0, LONG, "Because of the locks."),
        row(1, "Name a colour.", "Red."),
        row(2, LONG, "Because of the locks."),
        row(3, LONG.replace("nine", "ten"), "Because of the locks."),
    ]
    found = repetitions(rows, 0.8)
    assert found["rows"] == 2
    assert found["by"] == {"equal": 1, "jaccard": 1}
    assert [(each["row"], each["like"]) for each in found["examples"]] == [
        ("r2", "r0"),
        ("r3", "r0"),
    ]
    assert repetitions([], 0.8)["rows"] == 0


def test_a_row_with_texts_of_two_evaluation_sets_counts_for_both(tmp_path: Path):
    other = "Which of the seven rivers of the old kingdom does not reach the sea in a dry summer?"
    sets = []
    for name, text in (
        ("one", LONG),
        ("two", other),
        ("none", "A question that nobody ever wrote"),
    ):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(json.dumps({"question": text}) + "\n")
        sets.append(EvaluationSet(path=str(path), name=name))
    rows = [row(0, LONG, f"You ask: {other}"), row(1, "Name a colour.", "Red.")]
    found = contaminated(rows, sets)
    assert {each["set"]: each["rows"] for each in found} == {"one": 1, "two": 1, "none": 0}
    assert all(each["examples"][0]["row"] == "r0" for each in found[:2])


class Given:
    """Vectors by text."""

    name = "given"

    def __init__(self, **vectors: Sequence[float]) -> None:
        self.vectors = vectors

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([self.vectors[text] for text in texts], np.float32)


@pytest.mark.parametrize("count", [1, 3, 40])
def test_the_effective_number_of_wholly_different_vectors_is_their_number(count: int):
    assert distinct(np.eye(count, 40, dtype=np.float32)) == pytest.approx(count)
    assert distinct(np.repeat(np.eye(1, 40, dtype=np.float32), count, axis=0)) == pytest.approx(1)


def test_copies_do_not_add_to_the_effective_number():
    vectors = np.eye(4, dtype=np.float32)
    assert distinct(np.concatenate([vectors, vectors])) == pytest.approx(4)
    skewed = np.concatenate([vectors, np.repeat(vectors[:1], 50, axis=0)])
    assert 1 < distinct(skewed) < 2
    assert distinct(np.empty((0, 4), np.float32)) == 0


def test_coverage_is_told_before_and_after_each_stage():
    embedder = Given(a=[1, 0], b=[0, 1], c=[0.6, 0.8])
    found = coverage(embedder, [("seeds", ["a"]), ("round 1", ["b"]), ("round 2", ["c"])])
    assert [(each["added"], each["all"]) for each in found] == [(1, 1), (1, 2), (1, 3)]
    assert [each["nearest"] for each in found] == [None, 0.0, 0.8]
    assert found[0]["distinct"] == 1
    assert found[1]["distinct"] == 2
    assert found[2]["distinct"] < 2


def test_the_page_escapes_texts_and_tells_every_figure():
    made = row(1, "<script>alert(1)</script>", "</div>& fine", operation="deepen", parent="s")
    made["lineage"] |= {"round": 1}
    left = row(2, "bad <b>", verdict="leaked", operation="deepen", parent="s")
    left["lineage"] |= {"round": 1}
    figures = {
        "method": "evol-instruct",
        "seeds": 1,
        "rows": 1,
        "left_out": 1,
        "reasons": {"leaked": 1},
        "yield": [{"round": 1, "operation": "deepen", "verdicts": {"accepted": 1, "leaked": 1}}],
        "seconds": 3.0,
        "stopped": "the budget is spent: calls 9 of 9.",
        "calls_lost_when_killed": 2,
        "spent": [
            {"model": "m", "calls": 9, "prompt_tokens": 1200, "completion_tokens": 80}
            | {"cost": 0.25, "currency": "EUR"}
        ],
        "coverage": [{"stage": "seeds", "added": 1, "all": 1, "distinct": 1.0, "nearest": None}],
        "scores": [{"stage": "round 1", "difficulty": [0, 1] + [0] * 8, "quality": [1] + [0] * 9}],
        "repetitions": {"rows": 0, "by": {}, "examples": []},
        "contamination": [{"set": "gsm8k", "rows": 1, "examples": [{"row": "r1", "found": "it"}]}],
    }
    page = render_generation_report(
        "demo", figures, {"s": "Once & for all"}, Generated([made], [left])
    )
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "bad <b>" not in page
    for said in (
        "the budget is spent",
        "1,200 + 80",
        "0.2500 EUR",
        "2 calls were under way",
        "gsm8k: 1 rows hold",
        "Once &amp; for all",
        "50%",
        ">10</text>",
        "<title>2: 1</title>",
    ):
        assert said in page, said
