"""Real runs, made once a session and shared."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import ROOT

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def llmkit_here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs the command line in this process, which has loaded everything already."""
    from llmkit import cli

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", ["llmkit", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(words, code, *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What `make quickstart` left, and what it printed."""
    runs = tmp_path_factory.mktemp("runs")
    command = ["make", "quickstart", f"RUNS={runs}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1100)
    assert done.returncode == 0, done.stdout + done.stderr
    return runs / "quickstart", done.stdout
