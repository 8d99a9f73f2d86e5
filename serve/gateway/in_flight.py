"""Requests under way: counted, waited for, and cut short when their time is over."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.gateway.errors import error_body, error_event, send_error
from serve.gateway.exchange import exchange_of


@dataclass(frozen=True)
class Cut:
    """Why a request is ended before its answer is complete."""

    status: int
    """For a client whose answer has not begun."""

    code: str
    message: str


SHUTDOWN = Cut(
    503,
    "server_shutdown",
    "the server shut down before the answer was complete; send the request again.",
)
ENGINE_DIED = Cut(
    503,
    "engine_died",
    "the engine died before the answer was complete; send the request again when the server has "
    "been started anew.",
)


class InFlight:
    """Runs each request as a task of its own, so that any of them can be ended at any time."""

    def __init__(
        self, app: ASGIApp, seconds: float | None = None, *, untimed: tuple[str, ...] = ()
    ) -> None:
        """Run the requests of ``app``.

        Args:
            app: answers them.
            seconds: how long one may take from the moment it comes here, if it is not of low
                priority: lines of batches wait for everyone else, however long.
            untimed: beginnings of paths whose requests take as long as they do.
        """
        self._app = app
        self._seconds = seconds
        self._untimed = untimed
        self._too_long = Cut(
            504,
            "request_timeout",
            f"the answer took longer than {seconds or 0:g} s, this server's limit "
            "(request_seconds); ask for fewer tokens.",
        )
        self._requests: dict[asyncio.Task[None], Cut | None] = {}
        self._none_left = asyncio.Event()
        self._none_left.set()
        self._over: Cut | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and note that it is under way."""
        loop = asyncio.get_running_loop()
        response = _Response(send, scope["path"])
        if self._over is not None:
            exchange_of(scope).rejected = self._over.code
            await response.cut(self._over)
            return
        request = loop.create_task(self._run(scope, receive, response.send))
        self._requests[request] = None
        self._none_left.clear()
        alarm = None
        timed = exchange_of(scope).priority == 0 and not scope["path"].startswith(self._untimed)
        if self._seconds and timed:
            alarm = loop.call_later(self._seconds, self._cut, request, self._too_long)
        try:
            await request
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if this is not None and this.cancelling():
                # It is this call that was cancelled (whoever made it gave up on it), and the
                # request with it.
                request.cancel()
                raise
            why = self._requests[request] or SHUTDOWN
            exchange_of(scope).rejected = why.code
            await response.cut(why)
        finally:
            if alarm:
                alarm.cancel()
            del self._requests[request]
            if not self._requests:
                self._none_left.set()

    def __len__(self) -> int:
        """Requests under way."""
        return len(self._requests)

    async def wait_until_none(self) -> None:
        """Return once no request is under way."""
        await self._none_left.wait()

    def cut_all(self, why: Cut = SHUTDOWN) -> None:
        """End every request now, and those that are still on their way here when they come.

        Their clients are told in the API's error shape.
        """
        self._over = why
        for request in self._requests:
            self._cut(request, why)

    def _cut(self, request: asyncio.Task[None], why: Cut) -> None:
        if request.cancel():
            self._requests[request] = self._requests[request] or why

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


class _Response:
    """Remembers how far a response got, to end it in a way its client understands."""

    def __init__(self, send: Send, path: str) -> None:
        self._send = send
        self._path = path
        self._started = self._complete = self._events = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            self._complete = not message.get("more_body", False)
        elif message["type"] == "http.response.start":
            self._started = True
            self._events = any(
                name.lower() == b"content-type" and value.startswith(b"text/event-stream")
                for name, value in message["headers"]
            )
        await self._send(message)

    async def cut(self, why: Cut) -> None:
        if not self._started:
            await send_error(
                self._send, why.status, why.message, kind="server_error", code=why.code
            )
        elif self._events and not self._complete:
            body = error_body(why.message, kind="server_error", code=why.code)
            event = error_event(self._path, body)
            await self._send({"type": "http.response.body", "body": event})
