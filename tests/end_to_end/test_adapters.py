"""From a training to an answer: a run's adapter, loaded into a running server of its base."""

from pathlib import Path

import httpx
import pytest
from commands import llmkit

from serve.model import open_model
from serve.process import ServerProcess
from serve.settings import ServeSettings

pytestmark = pytest.mark.end_to_end


def test_a_runs_adapter_is_loaded_named_and_unloaded_from_the_terminal(
    smollm2: Path, quickstart: tuple[Path, str], tmp_path: Path
) -> None:
    run, _ = quickstart
    settings = ServeSettings(max_model_len=512, adapters_folder=run.parent, max_adapters=1)
    with ServerProcess(open_model(smollm2, name="smollm2"), tmp_path / "log", settings) as server:
        done = llmkit("adapters", "load", server.url, "helper", "quickstart")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "helper@1 = helper  served, quickstart, rank 16, verified" in done.stdout
        asked = {"model": "helper", "messages": [{"role": "user", "content": "Hi"}]}
        answer = httpx.post(f"{server.url}/chat/completions", json=asked, timeout=60)
        assert answer.json()["model"] == "helper@1"

        full = llmkit("adapters", "load", server.url, "helper", "quickstart")
        assert (full.returncode, "max_adapters=2" in full.stderr) == (2, True)
        assert llmkit("adapters", "unload", server.url, "helper").returncode == 0
        done = llmkit("adapters", "unload", server.url, "helper@1")
        assert (done.returncode, done.stdout) == (0, "helper@1 is unloaded\n")
        listed = llmkit("adapters", "list", server.url)
        assert (listed.stdout, "0 of 1 slots" in listed.stderr) == ("", True)
