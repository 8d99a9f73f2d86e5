"""A real server's traces and access log, complete when it has ended."""

import json
import signal
from pathlib import Path

import httpx
import pytest
from collector import collecting

from serve.model import open_model
from serve.process import ServerProcess
from serve.settings import ServeSettings

pytestmark = pytest.mark.end_to_end


def test_the_engines_span_is_below_ours_and_the_log_names_the_trace(
    smollm2: Path, tmp_path: Path
) -> None:
    log = tmp_path / "access.log"
    with collecting() as collector:
        settings = ServeSettings(
            max_model_len=256, access_log=log, otlp_endpoint=collector.endpoint
        )
        model = open_model(smollm2, name="smollm2")
        with ServerProcess(model, tmp_path / "server.log", settings) as server:
            asked = {"model": "smollm2", "prompt": "One, two,", "max_tokens": 4, "stream": True}
            httpx.post(f"{server.url}/completions", json=asked, timeout=120)
            server.signal(signal.SIGTERM)
            assert server.wait(60) == 0
    [line] = [json.loads(line) for line in log.read_text().splitlines()]
    assert line["completion_tokens"] == 4
    assert line["first_token_seconds"] > 0
    ours = [span for _, span in collector.spans if span.name == "POST /v1/completions"]
    theirs = [span for _, span in collector.spans if span.name == "llm_request"]
    assert [span.trace_id.hex() for span in ours + theirs] == [line["trace_id"]] * 2
    assert theirs[0].parent_span_id == ours[0].span_id
    assert {service for service, _ in collector.spans} == {"llmkit"}
