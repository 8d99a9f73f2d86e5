"""Calling one layer of the gateway without HTTP, for the tests of layers."""

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.gateway.exchange import Exchange, exchange_of

EVENT_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8")]
TEXT = b'data: {"choices":[{"text":"a"}]}\n\n'
DONE = b"data: [DONE]\n\n"


def call(
    app: ASGIApp,
    path: str = "/v1/completions",
    *,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"{}",
) -> tuple[Exchange, list[Message]]:
    """The exchange afterwards, and what was sent."""
    sent: list[Message] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    named = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    scope: Scope = {
        "type": "http",
        "path": path,
        "method": method,
        "headers": named,
        "client": ("127.0.0.1", 1),
    }
    exchange = exchange_of(scope)
    asyncio.run(app(scope, receive, send))
    return exchange, sent


def streaming(*chunks: bytes, seconds: float = 0.0, finished: bool = True) -> ASGIApp:
    """An app that streams these chunks, that long apart."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": EVENT_STREAM})
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await asyncio.sleep(seconds)
        if finished:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app
