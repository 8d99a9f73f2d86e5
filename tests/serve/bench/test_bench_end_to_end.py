"""`llmkit bench serve` on the real engine."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmkit.cli import app
from serve.process import ServerProcess

pytestmark = pytest.mark.end_to_end


def test_a_real_server_is_measured_and_plotted(server: ServerProcess, tmp_path: Path) -> None:
    words = ["bench", "serve", server.url, "--concurrency", "1,2", "--requests", "2", "--json"]
    words += ["--input-tokens", "8", "--output-tokens", "4", "--ignore-eos"]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    loads = json.loads(done.stdout)
    assert [load["completion_tokens"] for load in loads] == [8, 8]
    for load in loads:
        assert load["output_tokens_per_second"] > 0
        assert 0 < load["ttft"]["p50"] < load["latency"]["p50"]
        assert load["tpot"]["p50"] > 0
    assert (tmp_path / "index.html").read_text().count("<img") == len(list(tmp_path.glob("*.png")))
    assert all(png.read_bytes().startswith(b"\x89PNG") for png in tmp_path.glob("*.png"))
