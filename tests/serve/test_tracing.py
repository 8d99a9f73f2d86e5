"""Spans, as a collector gets them."""

import re
import time
from typing import Any

from collector import collecting
from gateway_calls import TEXT, call, streaming
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.gateway.account import Account
from serve.gateway.errors import send_error
from serve.gateway.exchange import exchange_of
from serve.gateway.observe import Observe
from serve.gateway.routes import AllowList
from serve.keys.key import Key
from serve.metrics.figures import Figures
from serve.tracing import Tracing

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def traced(app: ASGIApp, **asked: Any) -> Span:
    with collecting() as collector:
        tracing = Tracing(collector.endpoint)
        call(Observe(AllowList(app), Figures(keys=1, models=1), tracing=tracing), **asked)
        tracing.close()
        [(service, span)] = collector.spans
    assert service == "llmkit"
    return span


def attributes(span: Span) -> dict[str, object]:
    return {
        a.key: a.value.int_value if a.value.HasField("int_value") else a.value.string_value
        for a in span.attributes
    }


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    exchange = exchange_of(scope)
    exchange.request_id, exchange.model, exchange.key = "r1", "support@3", Key("k-1", "someone")
    exchange.prompt_tokens = 7
    await Account(streaming(TEXT, TEXT, TEXT, seconds=0.02))(scope, receive, send)


def test_a_span_has_the_routes_name_and_what_the_exchange_knows() -> None:
    before = time.time_ns()
    span = traced(answer)
    assert span.name == "POST /v1/completions"
    assert span.kind == Span.SPAN_KIND_SERVER
    assert attributes(span) == {
        "http.request.method": "POST",
        "http.route": "/v1/completions",
        "http.response.status_code": 200,
        "gen_ai.request.model": "support@3",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "llmkit.request_id": "r1",
        "llmkit.key": "k-1",
    }
    [event] = span.events
    assert event.name == "first token"
    millisecond = 10**6
    assert before < span.start_time_unix_nano <= event.time_unix_nano + millisecond
    assert span.end_time_unix_nano - event.time_unix_nano > 50 * millisecond


def test_a_clients_trace_goes_on_through_the_gateway_to_the_engine() -> None:
    passed_on: list[bytes] = []

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        passed_on.extend(value for name, value in scope["headers"] if name == b"traceparent")
        await answer(scope, receive, send)

    span = traced(note, headers={"traceparent": PARENT})
    assert span.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert span.parent_span_id.hex() == "b7ad6b7169203331"
    assert passed_on == [f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01".encode()]


def test_without_a_clients_trace_one_begins() -> None:
    span = traced(answer, headers={"traceparent": "nonsense\xff"})
    assert not span.parent_span_id
    assert re.fullmatch("[0-9a-f]{32}", span.trace_id.hex())


def test_a_failure_of_the_server_is_an_error_and_nothing_that_was_said_is_told() -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        exchange_of(scope).body = {"prompt": "sk-secret"}
        exchange_of(scope).rejected = "engine_overloaded"
        await send_error(send, 503, "sk-secret", kind="server_error", code="engine_overloaded")

    span = traced(fail, headers={"authorization": "Bearer sk-secret"})
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert attributes(span)["error.type"] == "engine_overloaded"
    assert b"sk-secret" not in span.SerializeToString()


def test_a_collector_that_is_gone_holds_nothing_up() -> None:
    tracing = Tracing("http://127.0.0.1:9/v1/traces")
    app = Observe(answer, Figures(keys=1, models=1), tracing=tracing)
    _, sent = call(app)
    assert sent[0]["status"] == 200
    started = time.perf_counter()
    tracing.close()
    assert time.perf_counter() - started < 5


def test_probes_make_no_span() -> None:
    with collecting() as collector:
        tracing = Tracing(collector.endpoint)
        app = Observe(AllowList(answer), Figures(keys=1, models=1), tracing=tracing)
        for path in ("/health", "/ready", "/metrics"):
            call(app, path, method="GET")
        tracing.close()
        assert collector.spans == []
