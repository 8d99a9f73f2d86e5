"""The real engine when clients leave, and when it is killed."""

import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from serve.model import open_model
from serve.process import ServerProcess
from serve.settings import ServeSettings

pytestmark = pytest.mark.end_to_end

LONG: dict[str, Any] = {"prompt": "Once upon a time", "max_tokens": 1500, "ignore_eos": True}


def gauge(server: ServerProcess, name: str) -> float:
    """A figure of the engine's, over all its labels."""
    lines = httpx.get(f"{server.root_url}/metrics").text.splitlines()
    named = [line for line in lines if line.startswith((f"{name}{{", f"{name} "))]
    return sum(float(line.rsplit(" ", 1)[1]) for line in named)


def comes_true(what: Callable[[], bool], seconds: float = 15) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if what():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_generation_and_frees_its_cache(
    server: ServerProcess, stream: bool
) -> None:
    asked = {"model": server.model.name, "stream": stream, **LONG}
    with httpx.Client(timeout=60) as client:
        if stream:
            with client.stream("POST", f"{server.url}/completions", json=asked) as answer:
                assert answer.status_code == 200
                lines = answer.iter_lines()  # one that is let go of closes the connection
                next(lines)
                assert comes_true(lambda: gauge(server, "vllm:num_requests_running") == 1)
                assert comes_true(lambda: gauge(server, "vllm:kv_cache_usage_perc") > 0)
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(f"{server.url}/completions", json=asked, timeout=1.5)
    assert comes_true(lambda: gauge(server, "vllm:num_requests_running") == 0)
    assert comes_true(lambda: gauge(server, "vllm:kv_cache_usage_perc") == 0)


def test_a_killed_engine_is_told_to_clients_and_ends_the_server(
    smollm2: Path, tmp_path: Path
) -> None:
    server = ServerProcess(
        open_model(smollm2, name="dying"),
        tmp_path / "log",
        ServeSettings(max_model_len=2048, database="none", max_running=2),
    )
    whole = {"model": "dying", **LONG}

    def post() -> httpx.Response:
        return httpx.post(f"{server.url}/completions", json=whole, timeout=60)

    with server, ThreadPoolExecutor(4) as others:
        # The other child only keeps track of what is shared between them.
        engine = max(psutil.Process(server.pid).children(), key=lambda p: p.memory_info().rss)
        asked = {"model": "dying", "stream": True, **LONG}
        with httpx.stream("POST", f"{server.url}/completions", json=asked, timeout=60) as answer:
            lines = (line for line in answer.iter_lines() if line)
            next(lines)
            # One is answered beside it, and three wait.
            waiting = [others.submit(post) for _ in range(4)]
            assert comes_true(lambda: gauge(server, "llmkit_requests_waiting") == 3)
            os.kill(engine.pid, signal.SIGKILL)
            killed = time.monotonic()
            rest = [line for line in lines if line != "data: [DONE]"]
            assert time.monotonic() - killed < 5, "clients are told"
        error = json.loads(rest[-1].removeprefix("data: "))["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["code"] == "engine_died"
        answers = [each.result() for each in waiting]
        assert time.monotonic() - killed < 5
        told = [(answer.status_code, answer.json()["error"]["code"]) for answer in answers]
        assert told == [(503, "engine_died")] * 4

        def not_ready() -> bool:
            try:
                return httpx.get(f"{server.root_url}/ready").status_code == 503
            except httpx.TransportError:
                return True

        assert comes_true(not_ready, 5)
        assert time.monotonic() - killed < 5
        assert server.wait(20) == 1
        assert time.monotonic() - killed < 20, "the process has ended"
        log = server.log.read_text()
        assert "error: the engine died" in log
