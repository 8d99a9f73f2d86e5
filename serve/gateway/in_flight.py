"""Requests under way: counted, waited for, and cut short when the waiting is over."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.gateway.errors import error_body, send_error


@dataclass(frozen=True)
class Cut:
    """What the clients of requests are told that are ended before they are answered."""

    message: str
    code: str
    kind: str = "server_error"


SHUTDOWN = Cut(
    "the server shut down before the answer was complete; send the request again.",
    "server_shutdown",
)
"""The server ends."""


class InFlight:
    """Runs each request as a task of its own, so that all of them can be ended at once."""

    def __init__(self, app: ASGIApp, cut: Cut = SHUTDOWN) -> None:
        self._app = app
        self._cut = cut
        self._requests: set[asyncio.Task[None]] = set()
        self._none_left = asyncio.Event()
        self._none_left.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and note that it is under way."""
        response = _Response(send, self._cut)
        request = asyncio.create_task(self._run(scope, receive, response.send))
        self._requests.add(request)
        self._none_left.clear()
        try:
            await request
        except asyncio.CancelledError:
            if not request.done():
                # It is this call that was cancelled (the HTTP server gave up on it).
                request.cancel()
                raise
            await response.cut()
        finally:
            self._requests.discard(request)
            if not self._requests:
                self._none_left.set()

    def __len__(self) -> int:
        """Requests under way."""
        return len(self._requests)

    async def wait_until_none(self) -> None:
        """Return once no request is under way."""
        await self._none_left.wait()

    def cut_all(self) -> None:
        """End every request now; their clients are told in the API's error shape."""
        for request in self._requests:
            request.cancel()

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


class _Response:
    """Remembers how far a response got, to end it in a way its client understands."""

    def __init__(self, send: Send, cut: Cut) -> None:
        self._send = send
        self._cut = cut
        self._started = self._complete = self._events = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            self._events = any(
                name.lower() == b"content-type" and value.startswith(b"text/event-stream")
                for name, value in message["headers"]
            )
        elif message["type"] == "http.response.body":
            self._complete = not message.get("more_body", False)
        await self._send(message)

    async def cut(self) -> None:
        if not self._started:
            told = self._cut
            await send_error(self._send, 503, told.message, kind=told.kind, code=told.code)
        elif self._events and not self._complete:
            body = error_body(self._cut.message, kind=self._cut.kind, code=self._cut.code)
            event = f"data: {json.dumps(body)}\n\n".encode()
            await self._send({"type": "http.response.body", "body": event})
