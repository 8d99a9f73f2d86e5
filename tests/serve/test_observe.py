"""What the outermost layer tells of each request, and what it never tells."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from gateway_calls import TEXT, call, streaming
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.access_log import AccessLog
from serve.gateway.errors import send_error, send_json
from serve.gateway.exchange import exchange_of
from serve.gateway.observe import Observe
from serve.gateway.routes import AllowList
from serve.keys.key import Key
from serve.metrics.figures import Figures
from serve.metrics.route import MetricsRoute


@pytest.fixture
def figures() -> Figures:
    return Figures(keys=10, models=10)


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    exchange = exchange_of(scope)
    exchange.key, exchange.model = Key("k-1", "someone"), "support@3"
    exchange.prompt_tokens, exchange.completion_tokens = 7, 5
    await send_json(send, 200, {"headers": [[n.decode(), v.decode()] for n, v in scope["headers"]]})


async def answer_without_tokens(scope: Scope, receive: Receive, send: Send) -> None:
    await send_json(send, 200, {})


def id_of(sent: list[Any]) -> str:
    [value] = [value for name, value in sent[0]["headers"] if name == b"x-request-id"]
    return str(value.decode())


def value(figures: Figures, name: str, **labels: str) -> float:
    who = {"route": "/v1/completions", "model": "support@3", "key": "k-1"}
    return figures.registry.get_sample_value(name, who | labels) or 0


def lines(file: Path, app: ASGIApp, figures: Figures, **asked: Any) -> list[dict[str, Any]]:
    log = AccessLog(file)
    call(Observe(app, figures, log=log), **asked)
    log.close()
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("fit", ["order-66", "a" * 128])
def test_a_request_id_that_is_fit_to_log_is_kept(figures: Figures, fit: str) -> None:
    exchange, sent = call(Observe(answer, figures), headers={"X-Request-Id": fit})
    assert exchange.request_id == id_of(sent) == fit


@pytest.mark.parametrize(
    "unfit", ["", "a" * 129, "two words", "new\nline", "é", "\x1b[31m", "sk-1"]
)
def test_a_request_id_that_is_not_is_replaced_for_the_engine_too(
    figures: Figures, unfit: str
) -> None:
    exchange, sent = call(Observe(answer, figures), headers={"X-Request-Id": unfit})
    assert id_of(sent) == exchange.request_id
    assert exchange.request_id.startswith("req-")
    passed_on = dict(json.loads(sent[1]["body"])["headers"])
    assert passed_on["x-request-id"] == exchange.request_id


def test_errors_of_the_layers_inside_carry_the_request_id(figures: Figures) -> None:
    exchange, sent = call(Observe(AllowList(answer), figures), "/nothing/here")
    assert sent[0]["status"] == 404
    assert id_of(sent) == exchange.request_id


def test_a_request_is_counted_by_route_model_key_and_status(figures: Figures) -> None:
    call(Observe(AllowList(answer), figures))
    assert value(figures, "llmkit_requests_total", status="200") == 1
    assert value(figures, "llmkit_tokens_total", kind="prompt") == 7
    assert value(figures, "llmkit_tokens_total", kind="completion") == 5
    assert value(figures, "llmkit_request_duration_seconds_count") == 1


def test_a_streams_pace_is_the_mean_between_its_tokens(figures: Figures) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        exchange.model = "support@3"
        exchange.key = Key("k-1", "someone")
        await streaming(TEXT, TEXT, TEXT)(scope, receive, send)
        exchange.completion_tokens = 3
        exchange.first_token = exchange.started + 0.5
        exchange.last_token = exchange.first_token + 0.06

    call(Observe(AllowList(app), figures))
    pace = value(figures, "llmkit_time_per_output_token_seconds_sum")
    assert pace == pytest.approx(0.03)
    assert value(figures, "llmkit_time_to_first_token_seconds_sum") == pytest.approx(0.5)


def test_a_refusal_is_counted_by_its_code(figures: Figures) -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        exchange_of(scope).rejected = "rate_limit_exceeded"
        await send_error(send, 429, "wait", kind="rate_limit_error", code="rate_limit_exceeded")

    call(Observe(AllowList(refuse), figures))
    labels = {"model": "none", "key": "none"}
    code = "rate_limit_exceeded"
    assert value(figures, "llmkit_rejections_total", code=code, **labels) == 1
    assert value(figures, "llmkit_requests_total", status="429", **labels) == 1


def test_what_is_refused_below_http_is_counted_and_logged(figures: Figures, tmp_path: Path) -> None:
    log = AccessLog(tmp_path / "log")
    request_id = Observe(answer, figures, log=log).refused(431, "too_many_headers", "10.0.0.9")
    log.close()
    labels = {"route": "other", "model": "none", "key": "none"}
    assert value(figures, "llmkit_requests_total", status="431", **labels) == 1
    assert value(figures, "llmkit_rejections_total", code="too_many_headers", **labels) == 1
    line = json.loads((tmp_path / "log").read_text())
    assert line.pop("time")
    assert line == {
        "request_id": request_id,
        "client": "10.0.0.9",
        "status": 431,
        "complete": True,
        "seconds": 0.0,
        "rejected": "too_many_headers",
    }


def test_a_request_whose_body_was_refused_has_the_status_of_that(figures: Figures) -> None:
    async def cut(scope: Scope, receive: Receive, send: Send) -> None:
        exchange_of(scope).cut_short = 408

    call(Observe(AllowList(cut), figures))
    assert value(figures, "llmkit_requests_total", status="408", model="none", key="none") == 1


def test_paths_asked_for_make_no_series(figures: Figures) -> None:
    app = Observe(AllowList(answer), figures)
    for number in range(50):
        call(app, f"/v1/models/m{number}", method="GET")
        call(app, f"/scan/{number}")
    counted = [f for f in figures.registry.collect() if f.name == "llmkit_requests"]
    routes = {s.labels["route"] for f in counted for s in f.samples}
    assert routes == {"/v1/models/{id}", "other"}


def test_a_request_without_tokens_makes_no_series_of_tokens(figures: Figures) -> None:
    call(Observe(AllowList(answer_without_tokens), figures), "/v1/models", method="GET")
    made = {f.name for f in figures.registry.collect() for s in f.samples if s.labels}
    assert made == {"llmkit_requests", "llmkit_request_duration_seconds"}


def test_keys_past_the_limit_share_a_series() -> None:
    figures = Figures(keys=3, models=10)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange_of(scope).key = Key(scope["path"][1:], "someone")
        await send_json(send, 200, {})

    for number in range(9):
        call(Observe(app, figures), f"/k{number}")
    [family] = [f for f in figures.registry.collect() if f.name == "llmkit_requests"]
    counts = {s.labels["key"]: s.value for s in family.samples if s.name.endswith("_total")}
    assert counts == {"k0": 1, "k1": 1, "k2": 1, "other": 6}


def test_a_client_that_leaves_before_the_answer_is_499(figures: Figures, tmp_path: Path) -> None:
    async def nothing(scope: Scope, receive: Receive, send: Send) -> None: ...

    [line] = lines(tmp_path / "log", AllowList(nothing), figures)
    assert (line["status"], line["complete"]) == (499, False)


def test_an_answer_that_breaks_off_is_not_complete(figures: Figures, tmp_path: Path) -> None:
    [line] = lines(tmp_path / "log", AllowList(streaming(TEXT, finished=False)), figures)
    assert (line["status"], line["complete"]) == (200, False)


async def fail(scope: Scope, receive: Receive, send: Send) -> None:
    secret = exchange_of(scope).request_id + " sk-secret"
    try:
        raise KeyError(secret)
    except KeyError as error:
        raise RuntimeError(secret) from error


def test_a_failure_inside_is_a_500_in_openais_shape(figures: Figures) -> None:
    exchange, sent = call(Observe(fail, figures))
    assert (sent[0]["status"], id_of(sent)) == (500, exchange.request_id)
    assert json.loads(sent[1]["body"])["error"]["code"] == "internal_error"
    assert b"sk-secret" not in sent[1]["body"]
    assert figures.under_way == 0


def test_a_failure_is_logged_with_its_place_and_without_its_message(
    figures: Figures, caplog: pytest.LogCaptureFixture
) -> None:
    exchange, _ = call(Observe(fail, figures))
    assert exchange.request_id in caplog.text
    assert "builtins.RuntimeError" in caplog.text
    assert "builtins.KeyError" in caplog.text
    assert "test_observe.py" in caplog.text
    assert "sk-secret" not in caplog.text.replace('+ " sk-secret"', "")


def test_a_line_says_who_asked_what_and_how_it_went(figures: Figures, tmp_path: Path) -> None:
    [line] = lines(tmp_path / "log", AllowList(answer), figures, headers={"x-request-id": "r1"})
    line.pop("time"), line.pop("seconds")
    assert line == {
        "request_id": "r1",
        "client": "127.0.0.1",
        "method": "POST",
        "route": "/v1/completions",
        "status": 200,
        "complete": True,
        "key": "k-1",
        "model": "support@3",
        "prompt_tokens": 7,
        "completion_tokens": 5,
    }


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/models/sk-secret", "/sk-secret"])
def test_no_secret_prompt_or_answer_reaches_the_log_or_the_metrics(
    figures: Figures, tmp_path: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange_of(scope).body = {"prompt": "sk-secret"}
        await send_json(send, 200, {"answer": "sk-secret"})

    caplog.set_level(logging.DEBUG)
    method = "GET" if "models" in path else "POST"
    headers = {"authorization": "Bearer sk-secret", "user-agent": "sk-secret"}
    told = lines(
        tmp_path / "log", AllowList(app), figures, path=path, method=method, headers=headers
    )
    _, sent = call(MetricsRoute(app, [figures.registry]), "/metrics", method="GET")
    assert "sk-secret" not in json.dumps(told) + caplog.text + sent[1]["body"].decode()


@pytest.mark.parametrize("status", [200, 503])
def test_probes_are_not_logged(figures: Figures, tmp_path: Path, status: int) -> None:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, status, {})

    assert lines(tmp_path / "log", AllowList(answer), figures, path="/ready", method="GET") == []


def test_metrics_are_one_exposition_with_each_family_once() -> None:
    ours, theirs = Figures(keys=1, models=1), Figures(keys=1, models=1)
    other = CollectorRegistry()
    from prometheus_client import Counter

    Counter("vllm:served", "Served.", registry=other).inc()
    app = MetricsRoute(answer, [ours.registry, theirs.registry, other])
    _, sent = call(app, "/metrics", method="GET")
    text = sent[1]["body"].decode()
    assert text.count("# TYPE llmkit_requests_total counter") == 1
    assert "vllm:served_total 1.0" in text


def test_metrics_asked_for_without_the_right_key_are_logged(
    figures: Figures, tmp_path: Path
) -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, 401, {})

    asked = {"path": "/metrics", "method": "GET"}
    [line] = lines(tmp_path / "log", AllowList(refuse), figures, **asked)
    assert (line["route"], line["status"]) == ("/metrics", 401)
