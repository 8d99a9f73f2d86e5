"""`llmkit generate` with the real engine as a teacher: behind our server, and in this process."""

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from serve.process import ServerProcess

SEEDS = ["Name three colours.", "Write a line about the sea.", "What is two and two?"]
RECIPE: dict[str, Any] = {"name": "made", "seeds": [{"path": "seeds.jsonl"}]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [json.dumps({"instruction": each}) + "\n" for each in SEEDS]
    (tmp_path / "seeds.jsonl").write_text("".join(lines))
    return tmp_path


def generate(method: str, folder: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    """The figures of a run that must end well."""
    (folder / "recipe.yaml").write_text(json.dumps(RECIPE | recipe))
    command = [sys.executable, "-m", "llmkit", "generate", method, "recipe.yaml", "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def test_our_server_is_a_teacher(folder: Path, server: "ServerProcess") -> None:
    recipe = {
        "teacher": {
            "model": "smollm2",
            "base_url": server.url,
            "sampling": {"max_tokens": 60},
        },
        "evolve": {"rounds": 1},
        "answers": {"judge": {"min_quality": 1}},
    }
    figures = generate("evol-instruct", folder, recipe)
    assert figures["rows"] + figures["left_out"] == len(SEEDS)
    (spent,) = figures["spent"]
    again = generate("evol-instruct", folder, recipe)
    assert again["spent"] == [spent], "the journal answers what was asked before"
    judged = [
        line
        for line in map(json.loads, (folder / "generated/made/journal.jsonl").open())
        if line.get("purpose") == "judge gain" and "answered" in line
    ]
    assert judged
    # The server enforces the schema: even this model answers with the object that was asked for.
    assert all(set(json.loads(each["text"])) == {"same"} for each in judged)


def test_an_engine_in_this_process_is_a_teacher(folder: Path, smollm2: Path) -> None:
    recipe = {
        "teacher": {"model": str(smollm2), "sampling": {"max_tokens": 40, "temperature": 0.0}},
        "serve": {"max_model_len": 1024, "log_level": "warning", "database": "none"},
    }
    figures = generate("answers", folder, recipe)
    (spent,) = figures["spent"]
    assert figures["coverage"][0]["all"] == len(SEEDS)
    assert spent["calls"] == len(SEEDS)
    assert spent["completion_tokens"] > len(SEEDS)
