"""The report: right for any state of a run, self-contained, and everything escaped."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from llmkit.errors import UsageError
from llmkit.files import write_json
from llmkit.report.charts import loss_curve, round_ticks
from llmkit.report.html import render

EVIL = "<script>alert(1)</script>"


def record(figures: dict[str, Any], outputs: list[str], **inputs: str) -> dict[str, Any]:
    return {
        "inputs": inputs,
        "outputs": {name: {"sha256": f"{name}-hash" + "0" * 50, "stamp": ""} for name in outputs},
        "figures": figures,
        "seconds": 61.4,
        "finished": "2026-01-02T03:04:05.678+00:00",
        "packages": {"torch": "2.13.0"},
    }


def ledger() -> dict[str, Any]:
    return {
        "rows_in": 1234567,
        "rows_kept": 1234000,
        "rows_truncated": 7,
        "rows_dropped": 560,
        "tokens_in": 9000,
        "tokens_kept": 8000,
        "tokens_cut": 400,
        "tokens_dropped": 600,
        "tokens_supervised": 3000,
        "dropped": {"over max_tokens": 1203, EVIL: 1},
        "train_rows": 1000,
        "validation_rows": 234,
        "packs": 37,
        "packing_efficiency": 0.9022,
        "stop_token": "<|im_end|>",
    }


def training(validation: float | None = 0.5) -> dict[str, Any]:
    return {
        "steps": 3,
        "isolation": {"kl_packed_vs_alone": 0.00001, "positions": 44},
        "validation_loss_start": validation and 5.25,
        "validation_loss_end": validation,
        "loss_first": 5.8,
        "loss_last": 0.4,
        "tokens_per_second": 264.4,
        "peak_memory_mib": 2010,
        "trainable_parameters": 4884480,
        "trainable_dtype": ["float32"],
        "compute_dtype": "bfloat16",
        "device": "cpu",
    }


def merging() -> dict[str, Any]:
    close = {"kl": 0.0003, "top1_changed": 0.028, "largest": 0.1, "positions": 148}
    return {"target": "base", "closeness": {"base": close, "dequantized": close}, "rows": 7}


def verdict(*, passed: bool = True) -> dict[str, Any]:
    checks = [
        {
            "name": "rendering",
            "passed": passed,
            "figures": {"rows": 7, "different": 0, "examples": [EVIL]},
            "problem": "" if passed else f"7 rows differ: {EVIL}",
        },
        {"name": "stopping", "passed": True, "figures": {"stop_ids": {"2": True}}, "problem": ""},
    ]
    return {"passed": passed, "checks": checks}


def stages() -> dict[str, Any]:
    return {
        "prep": record(ledger(), ["data"]),
        "train": record(training(), ["adapter"]),
        "merge": record(merging(), ["merged"], adapter="adapter-hash" + "0" * 50),
        "verify": record(verdict(), ["verification.json"], merged="merged-hash" + "0" * 50),
        "evaluate": record({"questions": 1}, ["evaluation.json"]),
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run's files."""
    folder = tmp_path / "demo"
    folder.mkdir()
    write_json(folder / "manifest.json", {"stages": stages()})
    answer = {
        "question": f"What? {EVIL}",
        "expect": ["x"],
        "base": f"{EVIL} & <b>bold</b>",
        "tuned": '"><img src=x onerror=alert(1)>',
        "base_right": False,
        "tuned_right": True,
    }
    write_json(
        folder / "evaluation.json",
        {"answers": [answer], "judged": 1, "base_right": 0, "tuned_right": 1},
    )
    lines = [
        f'{{"event": "step", "step": {step}, "loss": {6 / step}}}\n' for step in range(1, 5)
    ] + ['{"event": "validation", "step": 4, "loss": 1.5}\n', '{"event": "st']
    (folder / "events.jsonl").write_text("".join(lines))
    (folder / "recipe.yaml").write_text(f"name: demo  # {EVIL}\n")
    return folder


class Page(HTMLParser):
    """The tags, what they point at, and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.points_at: list[str] = []
        self.handlers: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "srcset", "action", "data"):
                self.points_at.append(str(value))
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_a_finished_run_is_told_whole(run: Path) -> None:
    text = Page(render(run)).text
    for words in (
        "5 of 5 stages done in 5 min 7 s",
        "Verified: trained = merged = served",
        "5.800 → 0.400",
        "5.250 → 0.500",
        "1,234,567",
        "over max_tokens 1,203",
        "90.2% full",
        "4,884,480 parameters trained in float32",
        "stop ids: 2 true",
        "2.80%",
        "2026-01-02 03:04 UTC",
        "torch 2.13.0",
    ):
        assert words in text


def test_every_text_of_a_run_is_escaped(run: Path) -> None:
    html = render(run)
    page = Page(html)
    assert EVIL not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert not {"script", "img", "iframe"} & set(page.tags)
    assert page.handlers == []


def test_nothing_is_fetched(run: Path) -> None:
    html = render(run)
    page = Page(html)
    assert page.points_at == []
    assert not {"link", "script", "object", "embed"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?://", html)


def test_a_failed_verdict_is_said_in_words(run: Path) -> None:
    all_stages = stages()
    all_stages["verify"]["figures"] = verdict(passed=False)
    write_json(run / "manifest.json", {"stages": all_stages})
    text = Page(render(run)).text
    assert "Verification failed (rendering): what is served is not what was trained" in text
    assert "7 rows differ" in text
    assert "Verified: trained" not in text


@pytest.mark.parametrize(("stage", "said"), [("merge", "merged again"), ("train", "trained again")])
def test_a_verdict_about_something_older_is_out_of_date(run: Path, stage: str, said: str) -> None:
    all_stages = stages()
    for output in all_stages[stage]["outputs"].values():
        output["sha256"] = "another"
    write_json(run / "manifest.json", {"stages": all_stages})
    text = Page(render(run)).text
    assert f"Out of date: {said} since it was verified" in text
    assert "Verified: trained" not in text


@pytest.mark.parametrize("done", range(6))
def test_a_run_that_stopped_halfway_shows_what_there_is(run: Path, done: int) -> None:
    some = dict(list(stages().items())[:done])
    write_json(run / "manifest.json", {"stages": some})
    text = Page(render(run)).text
    assert f"{done} of 5 stages done" in text
    assert ("Not verified yet" in text) == (done < 4)
    assert ("Ledger" in text) == (done >= 1)
    assert ("Before and after" in text) == (done == 5)


def test_an_empty_folder_has_a_report_too(tmp_path: Path) -> None:
    assert "0 of 5 stages done" in Page(render(tmp_path)).text


def test_a_run_without_validation_says_nothing_of_it(run: Path) -> None:
    all_stages = stages()
    all_stages["train"]["figures"] = training(None)
    write_json(run / "manifest.json", {"stages": all_stages})
    (run / "events.jsonl").unlink()
    assert "validation loss" not in Page(render(run)).text


@pytest.mark.parametrize("found", [{}, {"kl_own_forward": -1e-9}])
def test_a_run_of_one_row_a_step_says_nothing_of_packing(
    run: Path, found: dict[str, float]
) -> None:
    done = stages()
    done["train"]["figures"]["isolation"] = found
    write_json(run / "manifest.json", {"stages": done})
    text = Page(render(run)).text
    assert "packed behind" not in text
    assert ("own predictions: KL 0.00000" in text) == bool(found)


def test_an_edited_evaluation_is_left_out(run: Path) -> None:
    (run / "evaluation.json").write_text("{")
    assert "5 of 5 stages" in Page(render(run)).text


def test_a_damaged_manifest_is_said_to_be_damaged(run: Path) -> None:
    (run / "manifest.json").write_text("{")
    with pytest.raises(UsageError, match="damaged"):
        render(run)


def event(step: int, loss: Any, kind: str = "step") -> dict[str, Any]:
    return {"event": kind, "step": step, "loss": loss}


def test_a_curve_has_a_point_a_step_inside_its_box() -> None:
    curve = loss_curve([event(1, 5.0), event(2, 0.1), event(3, 2.0), event(3, 2.5, "validation")])
    assert curve
    (points,) = re.findall(r'<polyline points="([^"]*)"', curve)
    pairs = [tuple(map(float, pair.split(","))) for pair in points.split()]
    assert len(pairs) == 3
    assert all(0 <= x <= 640 and 0 <= y <= 260 for x, y in pairs)
    assert pairs[1][1] > pairs[2][1] > pairs[0][1], "a smaller loss is lower on the page"
    assert curve.count("<circle") == 1


@pytest.mark.parametrize(
    "events",
    [[], [event(1, 5.0)], [event(1, 5.0), event(2, float("nan"))], [event(1, None), {"event": 1}]],
)
def test_fewer_than_two_points_are_no_curve(events: list[dict[str, Any]]) -> None:
    assert loss_curve(events) is None


def test_a_flat_curve_can_be_drawn() -> None:
    assert loss_curve([event(1, 0.0), event(2, 0.0)])
    assert loss_curve([event(1, 2.0), event(2, 2.0)])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.003, 5.83, [0, 2, 4, 6]),
        (2.1, 2.4, [2.1, 2.2, 2.3, 2.4]),
        (0.0, 0.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
    ],
)
def test_ticks_are_round_and_cover_the_range(
    low: float, high: float, expected: list[float]
) -> None:
    ticks = round_ticks(low, high)
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert len(ticks) <= 7
    if high:
        assert ticks == expected


def test_a_reward_model_lacks_no_stage(run: Path) -> None:
    done = {name: record for name, record in stages().items() if name in ("prep", "train", "merge")}
    done["train"]["inputs"]["training.method"] = '"reward"'
    done["merge"]["figures"]["decisions"] = "pairs"
    write_json(run / "manifest.json", {"stages": done})
    text = Page(render(run)).text
    assert "3 of 3 stages done in" in text
    assert "A reward model: it scores answers and writes none" in text
    assert "pairs decided otherwise" in text
    assert "Line: training, nats a pair, by optimiser step." in text
    for untrue in ("not done", "Not verified", "supervised tokens of", "top tokens"):
        assert untrue not in text


def test_what_a_method_watches_and_trains_is_shown(run: Path) -> None:
    done = {"initialize": record({}, ["base"]), **stages()}
    done["train"]["inputs"]["training.method"] = '"dpo"'
    done["train"]["figures"]["watched"] = {"margin": [0.0, 1.25], "chosen_reward": [0.0, 0.5]}
    weights = "model.layers.*.self_attn.q_proj.lora_A.weight"
    done["train"]["figures"]["trains"] = {weights: {"tensors": 30, "parameters": 276480}}
    done["prep"]["figures"] |= {"rows_split": 153, "pieces": 328}
    write_json(run / "manifest.json", {"stages": done})
    text = Page(render(run)).text
    assert "5 of 5 stages done" in text
    assert "margin 0.000 → 1.250" in text
    assert f"{weights} 30 276,480" in text
    assert "split into 328 pieces 153" in text
    assert "Line: training, a pair, by optimiser step." in text
