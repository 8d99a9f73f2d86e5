"""`make quickstart`, as README says it, and everything it must leave behind."""

import json

import pytest
from commands import ROOT, llmkit

pytestmark = pytest.mark.end_to_end


def test_the_tuned_model_answers_as_the_data_teaches_and_the_base_does_not(quickstart):
    run, _ = quickstart
    result = json.loads((run / "evaluation.json").read_text())
    assert result["judged"] == 10
    assert result["tuned_right"] >= 8
    assert result["base_right"] == 0


def test_no_held_out_question_was_trained_on():
    def asked(line):
        entry = json.loads(line)
        texts = [entry["question"]] if "question" in entry else []
        texts += [m["content"] for m in entry.get("messages", []) if m["role"] == "user"]
        return {" ".join(text.lower().split()).strip("?.! ") for text in texts}

    data = ROOT / "recipes" / "data"
    trained, questions = (
        set().union(*map(asked, (data / name).read_text().splitlines()))
        for name in ("llmkit-helper.jsonl", "llmkit-helper-questions.jsonl")
    )
    assert len(questions) == 10
    assert not trained & questions


def test_every_part_of_the_run_is_there(quickstart):
    run, _ = quickstart
    for name in [
        "recipe.yaml",
        "manifest.json",
        "data/train.arrow",
        "data/ledger.json",
        "data/dropped.jsonl",
        "checkpoints",
        "adapter/adapter_model.safetensors",
        "merged/model.safetensors",
        "merged/chat_template.jinja",
        "verification.json",
        "evaluation.json",
        "report.html",
        "events.jsonl",
    ]:
        assert (run / name).exists(), name
    assert not list(run.rglob("*.partial"))


def test_the_manifest_names_inputs_outputs_and_figures_of_every_stage(quickstart):
    run, _ = quickstart
    stages = json.loads((run / "manifest.json").read_text())["stages"]
    assert list(stages) == ["prep", "train", "merge", "verify", "evaluate"]
    for record in stages.values():
        assert record["inputs"]
        assert all(len(output["sha256"]) == 64 for output in record["outputs"].values())
        assert record["figures"]
        assert record["seconds"] >= 0
        assert record["packages"]["torch"]
    figures = stages["train"]["figures"]
    assert figures["loss_last"] < 0.3 * figures["loss_first"]
    assert figures["trainable_dtype"] == ["float32"]


def test_the_verdict_is_that_trained_merged_and_served_agree(quickstart):
    run, _ = quickstart
    verdict = json.loads((run / "verification.json").read_text())
    assert verdict["passed"]
    names = [check["name"] for check in verdict["checks"]]
    assert names == ["rendering", "merging", "serving", "stopping"]


def test_both_answers_are_printed_and_what_to_type_next(quickstart):
    _, printed = quickstart
    assert "base model" in printed
    assert "tuned model" in printed
    assert "What to type next" in printed
    assert "llmkit serve" in printed


def test_the_report_is_one_file_that_fetches_nothing(quickstart):
    run, _ = quickstart
    html = (run / "report.html").read_text()
    assert "<svg" in html
    assert "trained = merged = served" in html
    assert "src=" not in html
    assert "url(" not in html
    assert "<link" not in html


def test_a_second_run_skips_every_stage(quickstart):
    run, _ = quickstart
    before = (run / "manifest.json").read_bytes()
    done = llmkit("quickstart", "--runs", str(run.parent))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("unchanged, skipped") == 5
    assert (run / "manifest.json").read_bytes() == before
