"""Real runs, made once a session and shared."""

import subprocess
from pathlib import Path

import pytest
from commands import ROOT


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What `make quickstart` left, and what it printed."""
    runs = tmp_path_factory.mktemp("runs")
    command = ["make", "quickstart", f"RUNS={runs}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stdout + done.stderr
    return runs / "quickstart", done.stdout
