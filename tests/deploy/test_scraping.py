"""A real Prometheus, with our configuration, reads a server that asks for a key."""

import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import yaml
from starlette.types import Receive, Scope, Send

from serve.gateway.errors import send_error, send_json
from serve.gateway.exchange import Exchange
from serve.keys.key import Key
from serve.listening import address_of, listen
from serve.metrics.figures import Figures
from serve.metrics.route import MetricsRoute

DEPLOY = Path(__file__).parents[2] / "deploy"
KEY = "sk-llmkit-for-metrics"

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="needs prometheus: scripts/system-packages.sh"
)


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    await send_json(send, 404, {})


class AsksForKey:
    """`/metrics` for one key."""

    def __init__(self, figures: Figures) -> None:
        self._metrics = MetricsRoute(nothing, [figures.registry])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (b"authorization", f"Bearer {KEY}".encode()) in scope["headers"]:
            await self._metrics(scope, receive, send)
        else:
            await send_error(send, 401, "no key", kind="authentication_error", code="no_key")


def answered(figures: Figures, model: str, status: int) -> None:
    exchange = Exchange(route="/v1/completions", model=model, key=Key("k-1", "someone"))
    exchange.prompt_tokens, exchange.completion_tokens = 10, 5
    exchange.first_token = exchange.started + 0.1
    exchange.last_token = exchange.started + 0.5
    figures.count(exchange, status, exchange.started + 0.6)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus that has read our server a few times."""
    folder = tmp_path_factory.mktemp("prometheus")
    figures = Figures(keys=10, models=10)
    with listen("127.0.0.1", 0) as listening:
        config = uvicorn.Config(AsksForKey(figures), lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        threading.Thread(target=server.run, args=([listening],), daemon=True).start()
        settings = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
        settings["global"]["scrape_interval"] = "500ms"  # which is also how long one may take
        job = settings["scrape_configs"][0]
        job["static_configs"] = [{"targets": [address_of(listening).removeprefix("http://")]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
        (folder / "metrics-key").write_text(KEY + "\n")
        shutil.copy(DEPLOY / "prometheus/alerts.yml", folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
                "--log.level=error",
            ],
            stdout=subprocess.DEVNULL,
            stderr=(folder / "log").open("wb"),
        )
        try:
            # Prometheus looks for what to read some seconds after its start.
            until = time.monotonic() + 60
            while not _reads(f"http://{address}"):
                assert time.monotonic() < until, (folder / "log").read_text()
                time.sleep(0.1)
            for number in range(20):
                answered(figures, "base" if number % 2 else "support@1", 200)
                time.sleep(0.3)
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(20)
            server.should_exit = True


def _reads(prometheus: str) -> bool:
    try:
        return bool(ask(prometheus, 'up{job="llmkit"} == 1'))
    except OSError:  # it does not listen yet
        return False


def ask(prometheus: str, query: str) -> list[dict[str, Any]]:
    given = urllib.parse.urlencode({"query": query})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{prometheus}/api/v1/query?{given}", timeout=10) as answer:
        body = json.load(answer)
    assert body["status"] == "success"
    return list(body["data"]["result"])


def test_it_is_let_in_by_its_key(prometheus: str) -> None:
    [up] = ask(prometheus, 'up{job="llmkit"}')
    assert up["value"][1] == "1"


def test_the_dashboards_queries_of_ours_find_what_was_counted(prometheus: str) -> None:
    dashboard = json.loads((DEPLOY / "grafana/dashboards/llmkit.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", "5s")
            for name in ("route", "model", "key"):
                query = query.replace(f"${name}", ".*")
            # No 5xx and no refusal were counted; vLLM and the process are not there.
            if "vllm:" in query or "process_" in query or "5.." in query or "rejections" in query:
                continue
            found = ask(prometheus, query)
            assert found, f"{panel['title']}: {query}"
            assert all(sample["value"][1] != "NaN" for sample in found), panel["title"]


def test_a_models_time_to_first_token_is_what_was_counted(prometheus: str) -> None:
    query = (
        "sum by (model) (rate(llmkit_time_to_first_token_seconds_sum[5s]))"
        " / sum by (model) (rate(llmkit_time_to_first_token_seconds_count[5s]))"
    )
    found = {s["metric"]["model"]: float(s["value"][1]) for s in ask(prometheus, query)}
    assert found == pytest.approx({"base": 0.1, "support@1": 0.1})
