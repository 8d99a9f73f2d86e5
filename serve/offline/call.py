"""One line of a batch as a request to the gateway's layers, in this process."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.gateway.exchange import exchange_of
from serve.keys.key import Key

_log = logging.getLogger(__name__)

LINES = "/v1/batches (lines)"
"""What metrics and logs call the route of lines, to tell them from requests that someone awaits."""
LOW = 1
"""Priority of lines in the engine: requests with a higher number wait for those with a lower."""


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    request_id: str
    body: Any
    """The JSON."""
    wait: float | None = None
    """Seconds to wait before asking again, where the answer says so."""
    hopeless: bool = False
    """Whether the answer says not to ask again."""

    @property
    def code(self) -> str | None:
        """The error's short name."""
        error = self.body.get("error") if isinstance(self.body, dict) else None
        return error.get("code") if isinstance(error, dict) else None


class Late:
    """Stands for an app that is made after those who call it."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        await self.app(scope, receive, send)


class AsLine:
    """Names the route of what passes through for metrics and logs, once it is answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        try:
            await self._app(scope, receive, send)
        finally:
            exchange_of(scope).route = LINES


async def ask(app: ASGIApp, endpoint: str, body: dict[str, Any], key: Key | None) -> Answer:
    """Ask the layers from the body's check on; cancelling it ends the generation."""
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "method": "POST",
        "path": endpoint,
        "raw_path": endpoint.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
        ],
        "client": None,
        "server": None,
    }
    exchange = exchange_of(scope)
    exchange.route, exchange.key, exchange.priority = endpoint, key, LOW
    given = False
    start: Message = {}
    pieces: list[bytes] = []

    async def receive() -> Message:
        nonlocal given
        if given:
            await asyncio.Event().wait()
        given = True
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        elif message["type"] == "http.response.body":
            pieces.append(message.get("body", b""))

    try:
        await app(scope, receive, send)
    except Exception:
        _log.exception("request %s of a batch failed", exchange.request_id)
    headers = {name.lower(): value for name, value in start.get("headers", ())}
    wait = headers.get(b"retry-after", b"").decode("latin-1")
    return Answer(
        status=start.get("status", 500),
        request_id=exchange.request_id,
        body=_parsed(b"".join(pieces)),
        wait=float(wait) if wait.isdigit() else None,
        hopeless=headers.get(b"x-should-retry") == b"false",
    )


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None
