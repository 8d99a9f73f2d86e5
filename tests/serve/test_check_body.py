"""Bodies between the network and the engine."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from serve.gateway.check_body import CheckBody
from serve.gateway.errors import send_json
from serve.gateway.exchange import exchange_of
from serve.requests.bounds import Bounds
from serve.settings import ServeSettings

BOUNDS = Bounds(lambda: ["base"], max_model_len=512, vocabulary=1000)
CHAT = {"model": "base", "messages": [{"role": "user", "content": "Grüße 😀"}]}


async def engine(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what reached it."""
    raw = b""
    more = True
    while more:
        message = await receive()
        raw += message.get("body", b"")
        more = message.get("more_body", False)
    announced = dict(scope["headers"]).get(b"content-length")
    assert announced in (None, str(len(raw)).encode())
    exchange = exchange_of(scope)
    seen = {"raw": raw.decode("latin-1"), "body": exchange.body, "model": exchange.model}
    await send_json(send, 200, seen)


def post(
    content: bytes | AsyncIterator[bytes],
    path: str = "/v1/chat/completions",
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    async def ask() -> httpx.Response:
        app = CheckBody(engine, BOUNDS, ServeSettings(max_body_bytes=2048))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            sent = {"content-type": "application/json", **(headers or {})}
            return await client.post(path, content=content, headers=sent)

    return asyncio.run(ask())


def code(answer: httpx.Response) -> Any:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error["code"]


def test_the_engine_gets_the_bytes_that_were_sent_and_the_exchange_what_they_say() -> None:
    raw = json.dumps(CHAT, indent=3).encode()
    seen = post(raw).json()
    assert seen["raw"].encode("latin-1") == raw
    assert (seen["body"], seen["model"]) == (CHAT, "base")


def test_a_body_in_pieces_is_put_together() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for byte in json.dumps(CHAT).encode():
            yield bytes([byte])

    assert post(pieces()).json()["body"] == CHAT


def test_a_refused_request_never_reaches_the_engine() -> None:
    answer = post(json.dumps({**CHAT, "model": "other"}).encode())
    assert (answer.status_code, code(answer)) == (404, "model_not_found")
    assert answer.json()["error"]["param"] == "model"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"\xff\xfe",
        b'{"model": "base", "prompt": "\xff"}',
        b'{"model": "base", "prompt": "\\ud800"}',
        b'{"model": "base", "prompt": "x", "temperature": NaN}',
        b'{"model": "base", "prompt": "x", "temperature": Infinity}',
        b"[" * 1000 + b"]" * 1000,
        b'{"a":' * 300 + b"1" + b"}" * 300,
        b"\xef\xbb\xbf{}",
        '{"model": "base"}'.encode("utf-16"),
    ],
)
def test_what_is_no_plain_json_object_is_a_400(raw: bytes) -> None:
    answer = post(raw, "/v1/completions")
    assert (answer.status_code, code(answer)) == (400, "invalid_json")


def test_a_number_beyond_floats_is_a_400() -> None:
    answer = post(b'{"model": "base", "prompt": "x", "temperature": 1e999}', "/v1/completions")
    assert answer.status_code == 400


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_beyond_the_limit_is_a_413_and_the_connection_ends(announced: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 1000

    answer = post(b"x" * 3000 if announced else pieces())
    assert (answer.status_code, code(answer)) == (413, "request_too_large")
    assert answer.headers["connection"] == "close"


def test_an_announced_body_is_refused_before_it_is_read() -> None:
    async def ask() -> list[Message]:
        async def receive() -> Message:
            raise AssertionError("the body was asked for")

        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/completions",
            "headers": [(b"content-type", b"application/json"), (b"content-length", b"9" * 30)],
        }
        await CheckBody(engine, BOUNDS, ServeSettings())(scope, receive, send)
        return sent

    assert asyncio.run(ask())[0]["status"] == 413


@pytest.mark.parametrize(
    "headers",
    [{"content-type": "text/plain"}, {"content-type": ""}, {"content-encoding": "gzip"}],
)
def test_another_kind_of_body_is_a_415(headers: dict[str, str]) -> None:
    answer = post(json.dumps(CHAT).encode(), headers=headers)
    assert (answer.status_code, code(answer)) == (415, "unsupported_media_type")


def test_bodies_of_other_routes_are_parsed_and_bounded_but_not_checked() -> None:
    assert post(b'{"anything": 1}', "/v1/batches").json()["body"] == {"anything": 1}
    assert post(b"", "/v1/batches/b/cancel").json()["body"] is None
    assert post(b"{}" + b" " * 3000, "/v1/batches").status_code == 413
    upload = post(b"x" * 3000, "/v1/files", {"content-type": "multipart/form-data; boundary=a"})
    assert upload.json()["raw"] == "x" * 3000


def test_a_client_that_leaves_early_is_not_answered() -> None:
    async def ask() -> list[Message]:
        async def receive() -> Message:
            return {"type": "http.disconnect"}

        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/completions",
            "headers": [(b"content-type", b"application/json")],
        }
        await CheckBody(engine, BOUNDS, ServeSettings())(scope, receive, send)
        return sent

    assert asyncio.run(ask()) == []


def test_a_demanded_call_reaches_the_engine_with_objects_for_arguments() -> None:
    tool = {"type": "function", "function": {"name": "find"}}
    raw = json.dumps({**CHAT, "tools": [tool], "tool_choice": "required"}).encode()
    seen = post(raw).json()
    sent = json.loads(seen["raw"].encode("latin-1"))
    assert sent["tools"][0]["function"]["parameters"]["type"] == "object"
    assert sent == seen["body"]
