"""vLLM's errors on their way to the client."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.gateway.openai_errors import OpenAIErrors, clean, translate

EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8")]
JSON = [(b"content-type", b"application/json")]


def app(status: int, headers: Any, *bodies: bytes, then: Exception | None = None) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if status:
            await send({"type": "http.response.start", "status": status, "headers": headers})
        for place, body in enumerate(bodies):
            more = place < len(bodies) - 1 or then is not None
            await send({"type": "http.response.body", "body": body, "more_body": more})
        if then is not None:
            raise then

    return answer


def answer_of(
    inner: ASGIApp, path: str = "/v1/chat/completions", *, dead: bool = False
) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    asyncio.run(OpenAIErrors(inner, lambda: dead)({"type": "http", "path": path}, receive, send))
    return sent


def error_of(sent: list[Message]) -> tuple[int, dict[str, Any]]:
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert dict(sent[0]["headers"])[b"content-length"] == str(len(sent[1]["body"])).encode()
    error = json.loads(sent[1]["body"])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return sent[0]["status"], error


def vllm(status: int, message: str, param: str | None = None, kind: str = "BadRequestError") -> Any:
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


@pytest.mark.parametrize(
    ("status", "body", "code", "as_status"),
    [
        (404, vllm(404, "The model `x` does not exist."), "model_not_found", 404),
        (404, {"detail": "Not Found"}, "unsupported_route", 404),
        (
            400,
            vllm(400, "This model's maximum context length is 512 tokens. However, ..."),
            "context_length_exceeded",
            400,
        ),
        (400, vllm(400, "temperature must be in [0, 2]", "temperature"), "invalid_value", 400),
        (400, vllm(400, "Failed to transform json schema into a grammar: x"), None, 400),
        (422, {"detail": [{"loc": ["body"], "msg": "x"}]}, "invalid_value", 400),
        (429, vllm(429, "slow down"), "rate_limit_exceeded", 429),
        (500, vllm(500, "list index out of range"), "internal_error", 500),
        (501, vllm(501, "The model does not support X"), "unsupported_route", 404),
        (503, vllm(503, "queue is full"), "server_overloaded", 503),
        (500, None, "internal_error", 500),
        (400, "plain", "invalid_value", 400),
    ],
)
def test_a_status_and_its_words_become_openais_code(
    status: int, body: Any, code: str | None, as_status: int
) -> None:
    raw = json.dumps(body).encode() if body != "plain" else b"plain text"
    got, error = error_of(answer_of(app(status, JSON, raw)))
    assert got == as_status
    assert error["code"] == (code or "invalid_json_schema")
    assert isinstance(error["message"], str)


def test_what_went_wrong_inside_is_not_told_to_the_client() -> None:
    _, error = error_of(answer_of(app(500, JSON, json.dumps(vllm(500, "secret detail")).encode())))
    assert "secret" not in error["message"]
    assert error["type"] == "server_error"


def test_an_error_in_pieces_is_put_together() -> None:
    raw = json.dumps(vllm(400, "top_k must be 0", "top_k")).encode()
    _, error = error_of(answer_of(app(400, JSON, raw[:9], raw[9:])))
    assert (error["param"], error["code"]) == ("top_k", "invalid_value")


def test_the_field_of_a_long_prompt_is_the_routes_own() -> None:
    body = vllm(400, "maximum context length is 5", "input_tokens")
    assert translate(400, body, "/v1/chat/completions").param == "messages"
    assert translate(400, body, "/v1/completions").param == "prompt"


def test_a_stream_that_begins_with_an_error_is_an_error_and_no_stream() -> None:
    first = b"data: " + json.dumps(vllm(400, "bad grammar")).encode() + b"\n\n"
    got, error = error_of(answer_of(app(200, EVENTS, first, b"data: [DONE]\n\n", b"")))
    assert (got, error["code"]) == (400, "invalid_grammar")


def test_an_error_within_a_stream_is_an_event_in_openais_shape() -> None:
    event = b"data: " + json.dumps(vllm(500, "boom at /srv/x/y.py")).encode() + b"\n\n"
    sent = answer_of(app(200, EVENTS, b'data: {"id": 1}\n\n', event, b"data: [DONE]\n\n"))
    assert [message.get("status") for message in sent] == [200, None, None, None]
    error = json.loads(sent[2]["body"].removeprefix(b"data: "))["error"]
    assert (error["code"], error["type"]) == ("internal_error", "server_error")
    assert sent[3]["body"] == b"data: [DONE]\n\n"


def test_pieces_of_a_stream_go_out_as_they_are_and_at_once() -> None:
    pieces = [b'data: {"id": 1}\n\n', b'data: {"text": "data: {\\"error\\""}\n\n', b""]
    sent = answer_of(app(200, EVENTS, *pieces))
    assert [message.get("body") for message in sent[1:]] == pieces
    assert [message.get("more_body") for message in sent[1:]] == [True, True, False]


@pytest.mark.parametrize(
    ("inner", "statuses"),
    [
        (app(0, JSON, then=ValueError("x")), [500, None]),
        (app(500, JSON, b'{"error"', then=ValueError("x")), [500, None]),
        (app(200, EVENTS, then=ValueError("x")), [500, None]),
    ],
)
def test_an_app_that_raises_before_it_answers_is_a_500(
    inner: ASGIApp, statuses: list[int | None]
) -> None:
    sent = answer_of(inner)
    assert [message.get("status") for message in sent] == statuses
    assert json.loads(sent[1]["body"])["error"]["code"] == "internal_error"


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("/v1/completions", lambda event: json.loads(event.removeprefix(b"data: "))["error"]),
        (
            "/v1/responses",
            lambda event: json.loads(event.removeprefix(b"event: error\ndata: ")),
        ),
    ],
)
def test_an_app_that_raises_within_a_stream_ends_it_with_an_error_event(
    path: str, inside: Callable[[bytes], Any]
) -> None:
    sent = answer_of(app(200, EVENTS, b"data: 1\n\n", then=RuntimeError("x")), path)
    assert inside(sent[2]["body"])["code"] == "internal_error"
    assert not sent[2].get("more_body", False)


def test_an_exception_after_the_answer_changes_nothing() -> None:
    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        await app(500, JSON, b"{}")(scope, receive, send)
        raise RuntimeError("as starlette does")

    assert len(answer_of(inner)) == 2


def test_no_path_or_frame_stays_in_a_message() -> None:
    text = clean(
        'Traceback (most recent call last):\n  File "/usr/lib/python3/x.py", line 3, in f\n'
        "no such file: /home/me/models/smollm2/config.json (<Thing object at 0x7f00>)"
    )
    assert "/home" not in text
    assert "Traceback" not in text
    assert "0x7f00" not in text
    assert clean("use /v1 or and/or, 3/4, https://x.org/a/b") == (
        "use /v1 or and/or, 3/4, https://x.org/a/b"
    )
    assert len(clean("x" * 10_000)) < 1100


def test_the_log_names_an_error_and_quotes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    body = json.dumps(vllm(500, "my prompt", kind="InternalServerError")).encode()
    answer_of(app(500, JSON, body))
    answer_of(app(200, EVENTS, b"data: " + body + b"\n\n"))
    assert len(caplog.messages) == 2
    assert all("prompt" not in line for line in caplog.messages)
    assert all("InternalServerError" in line for line in caplog.messages)


@pytest.mark.parametrize(
    "inner",
    [
        app(500, JSON, json.dumps(vllm(500, "EngineCore encountered an issue.")).encode()),
        app(0, JSON, then=RuntimeError("no engine")),
        app(200, EVENTS, b'data: {"error": {"message": "dead", "code": 500}}\n\n'),
    ],
)
def test_what_a_dead_engine_fails_is_told_as_its_death(inner: ASGIApp) -> None:
    status, error = error_of(answer_of(inner, dead=True))
    assert (status, error["code"]) == (503, "engine_died")


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/responses"])
def test_a_stream_that_a_dead_engine_breaks_off_says_so(path: str) -> None:
    inner = app(200, EVENTS, b"data: 1\n\n", then=RuntimeError("no engine"))
    last = answer_of(inner, path, dead=True)[-1]["body"].decode()
    assert '"engine_died"' in last
    assert last.startswith("event: error\n") is (path == "/v1/responses")


def test_a_request_at_fault_is_told_so_by_a_dead_engine_too() -> None:
    inner = app(400, JSON, json.dumps(vllm(400, "temperature must be at least 0")).encode())
    assert error_of(answer_of(inner, dead=True))[0] == 400
