"""kill -9 at any point: the same command finishes, with bitwise the same result."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import ROOT, llmkit

pytestmark = pytest.mark.end_to_end

RECIPE = """
name: {name}
model: {{base: {base}, device: cpu}}
data:
  sources: [{{path: {root}/recipes/data/llmkit-helper.jsonl}}]
  max_tokens: 512
  validation: 4
training:
  kernels: fused  # two trainings are compared; auto chooses by the clock
  epochs: 3
  checkpoint_every: 4
  learning_rate: 1.0e-2
  adapter: {{rank: 4, dropout: 0.1}}
merge: {{max_divergence: 1.0}}
"""


def _recipe(folder: Path, name: str, base: Path) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(RECIPE.format(name=name, base=base, root=ROOT))
    return path


def _kill_when(words: list[str], folder: Path, due: Callable[[], bool]) -> None:
    """Start a command and kill it with SIGKILL as soon as a condition holds."""
    process = subprocess.Popen(
        [sys.executable, "-m", "llmkit", *words],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not due():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_killed_in_training_and_in_merging_ends_bitwise_as_uninterrupted(tiny, tmp_path):
    whole = _recipe(tmp_path, "whole", tiny)
    cut = _recipe(tmp_path, "cut", tiny)
    done = llmkit("train", str(whole), cwd=tmp_path)
    assert done.returncode == 0, done.stderr

    run = tmp_path / "runs" / "cut"
    checkpoints = run / "checkpoints"
    _kill_when(["train", str(cut)], tmp_path, lambda: (checkpoints / "checkpoint-8").exists())
    assert not (run / "adapter").exists()
    resumed = llmkit("train", str(cut), cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after step" in resumed.stdout
    adapter = "adapter/adapter_model.safetensors"
    expected = (tmp_path / "runs" / "whole" / adapter).read_bytes()
    assert (run / adapter).read_bytes() == expected

    _kill_when(["merge", str(run)], tmp_path, lambda: (run / "merged.partial").exists())
    assert not (run / "merged").exists()
    assert "merge" not in json.loads((run / "manifest.json").read_text())["stages"]
    merged = llmkit("merge", str(run), cwd=tmp_path)
    assert merged.returncode == 0, merged.stderr
    assert (run / "merged" / "model.safetensors").is_file()
    assert not list(run.glob("*.partial"))
    assert (run / adapter).read_bytes() == expected
