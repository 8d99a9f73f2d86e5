"""A training that is stopped by SIGTERM: nothing half-written stays, and it goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def recipe(tiny, tmp_path):
    from conftest import rows

    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(40)))
    said = {
        "name": "cut",
        "model": {"base": str(tiny), "device": "cpu"},
        "data": {"sources": [{"path": "rows.jsonl"}], "max_tokens": 256},
        "training": {
            "adapter": {"rank": 4},
            "kernels": "fused",
            "max_steps": 60,
            "checkpoint_every": 4,
        },
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(said))  # JSON is YAML
    return path


def start(recipe, *words):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "llmkit", "train", str(recipe), *words],
        cwd=recipe.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stop_when(process, due):
    """SIGTERM as soon as a condition holds; the exit code, and what the command says."""
    deadline = time.monotonic() + 120
    while not due():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    out, error = process.communicate(timeout=60)
    return process.returncode, out, error


def done(process):
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return out


def children(run):
    """Processes that train this run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if str(run).encode() in words and folder.name != str(os.getpid()):
            found.append(words)
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes under /proc")
@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_leaves_nothing_half_written_and_the_same_command_goes_on(recipe, processes):
    together = ["--processes", "2"] if processes == 2 else []
    run = recipe.parent / "runs" / "cut"
    due = run / "checkpoints" / "checkpoint-4" / "whole.json"
    process = start(recipe, *together)
    code, out, error = stop_when(process, due.exists)
    assert code == 143, error
    assert error == "stopped; the same command goes on where it was\n"
    assert "interrupted. The same command goes on from" in out.replace("\n", " ")
    assert not list(run.rglob("*.partial"))
    assert not (run / "adapter").exists()
    assert children(run) == []

    if together:  # that they resume, and to the last bit, is `test_processes`'s to say
        return
    assert "resuming after step" in done(start(recipe))
    # To the last bit what it would have been: `test_interruptions` says so of a worse end.
    assert (run / "adapter" / "adapter_model.safetensors").is_file()
