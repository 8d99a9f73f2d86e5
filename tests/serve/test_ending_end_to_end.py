"""A real server from its start to SIGTERM: what it finishes, and what it leaves written down."""

import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from collector import collecting

from serve.model import open_model
from serve.process import ServerProcess
from serve.settings import ServeSettings

pytestmark = pytest.mark.end_to_end

ASKED = {
    "model": "draining",
    "prompt": "Once upon a time",
    "max_tokens": 150,
    "ignore_eos": True,
    "stream": True,
    "stream_options": {"include_usage": True},
}


@dataclass(frozen=True)
class Ended:
    """What was seen of a server that was told to end in the middle of an answer."""

    streamed: list[str]
    """Lines that came after SIGTERM."""
    exit_code: int
    left: list[psutil.Process]
    root_url: str
    output: str
    access: list[dict[str, Any]]
    spans: list[Any]
    """Each with the service that sent it."""


@pytest.fixture(scope="module")
def ended(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    folder = tmp_path_factory.mktemp("ending")
    log = folder / "access.log"
    with collecting() as collector:
        settings = ServeSettings(
            max_model_len=512, access_log=log, otlp_endpoint=collector.endpoint
        )
        server = ServerProcess(open_model(smollm2, name="draining"), folder / "log", settings)
        server.start()
        try:
            transport = httpx.HTTPTransport(retries=5)
            alive = httpx.Client(transport=transport).get(f"{server.root_url}/health", timeout=30)
            assert alive.status_code == 200
            assert not server.ready(), "alive must come before ready"
            server.wait_until_ready()
            family = psutil.Process(server.pid).children(recursive=True)
            assert family, "the engine is a process of its own"
            url = f"{server.url}/completions"
            with httpx.stream("POST", url, json=ASKED, timeout=60) as answer:
                lines = (line for line in answer.iter_lines() if line)
                next(lines)
                server.signal(signal.SIGTERM)
                streamed = list(lines)
            code = server.wait(60)
            _, left = psutil.wait_procs(family, timeout=10)
        finally:
            server.stop()
    access = [json.loads(line) for line in log.read_text().splitlines()]
    output = server.log.read_text()
    return Ended(streamed, code, left, server.root_url, output, access, collector.spans)


def test_the_answer_under_way_is_finished(ended: Ended) -> None:
    assert ended.streamed[-1] == "data: [DONE]"
    usage = json.loads(ended.streamed[-2].removeprefix("data: "))["usage"]
    assert usage["completion_tokens"] == 150


def test_nothing_of_the_server_is_left(ended: Ended) -> None:
    assert ended.exit_code == 0
    assert not ended.left
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{ended.root_url}/health")
    assert "Traceback" not in ended.output


def test_the_engines_span_is_below_ours_and_the_log_names_the_trace(ended: Ended) -> None:
    [line] = [line for line in ended.access if line["route"] == "/v1/completions"]
    assert line["completion_tokens"] == 150
    assert line["first_token_seconds"] > 0
    ours = [span for _, span in ended.spans if span.name == "POST /v1/completions"]
    theirs = [span for _, span in ended.spans if span.name == "llm_request"]
    assert [span.trace_id.hex() for span in ours + theirs] == [line["trace_id"]] * 2
    assert theirs[0].parent_span_id == ours[0].span_id
    assert {service for service, _ in ended.spans} == {"llmkit"}
