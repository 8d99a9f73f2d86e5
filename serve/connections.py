"""Guards on connections, below HTTP: heads and bodies that are too large, too slow, or too many.

uvicorn's parser (httptools) bounds none of them: a head of any size is collected, and a client that
sends one byte a minute holds its connection for ever.
"""

from __future__ import annotations

import asyncio
import json
import resource
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve.gateway.errors import error_body


@dataclass(frozen=True)
class ConnectionLimits:
    """What a client may do before its request is complete."""

    connections: int = 1000
    """Most connections at a time."""

    head_bytes: int = 32 * 1024
    """Largest request line and headers together."""

    headers: int = 100
    """Most headers."""

    head_seconds: float = 10.0
    """Longest time until a head is complete."""

    body_bytes_each: int = 1024
    """What must come of a body in every span of ``body_seconds``, while it is being read."""

    body_seconds: float = 10.0


class _Refused(Exception):
    """Ends the parsing of a request."""


def guarded(limits: ConnectionLimits) -> type[HttpToolsProtocol]:
    """Uvicorn's HTTP protocol with these limits."""

    class Guarded(_Guarded):
        pass

    Guarded.limits = limits
    return Guarded


def allow_connections(connections: int) -> None:
    """Raise this process's limit of open files, as far as it may, to serve so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 512  # the engine's sockets, logs, databases, libraries
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class _Guarded(HttpToolsProtocol):
    """Refuses in OpenAI's shape, with the connection closed, what exceeds its limits."""

    limits: ConnectionLimits

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reading = "head"
        self._begun = self._head = self._body = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._refusal = (400, "invalid_http", "this is not a valid HTTP request.")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse(503, "too_many_connections", "the server has no free connection left.")
            return
        self._set_alarm(self.limits.head_seconds, self._head_too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_alarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        begun = self._begun
        super().data_received(data)
        if self.transport.is_closing():
            self._stop_alarm()
        elif self._reading == "head":
            # The piece that a head began in may hold others' bytes too; `on_headers_complete`
            # measures the whole head exactly. This bounds what is collected before.
            self._head += len(data) if begun == self._begun else 1
            if self._head > self.limits.head_bytes:
                self._refuse(*self._too_large())
            elif self._alarm is None:
                self._set_alarm(self.limits.head_seconds, self._head_too_slow)
        elif self._reading == "body":
            if self._alarm is None:
                self._body = 0
                self._set_alarm(self.limits.body_seconds, self._body_too_slow)
        else:
            self._stop_alarm()

    def on_message_begin(self) -> None:
        self._reading = "head"
        self._head = 0
        self._begun += 1
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > self.limits.headers:
            self._refusal = (
                431,
                "too_many_headers",
                f"the request has more than {self.limits.headers} headers.",
            )
            raise _Refused

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self.limits.head_bytes:
            self._refusal = self._too_large()
            raise _Refused
        self._reading = "body"
        self._stop_alarm()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._reading = "nothing"
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (uvicorn's signature)
        self._refuse(*self._refusal)

    def _too_large(self) -> tuple[int, str, str]:
        return (
            431,
            "headers_too_large",
            f"the request line and headers are larger than {self.limits.head_bytes} bytes.",
        )

    def _head_too_slow(self) -> None:
        if self._head:
            self._refuse(408, "request_timeout", "the request's headers came too slowly.")
        else:
            self.transport.close()  # a connection on which nothing was asked

    def _body_too_slow(self) -> None:
        if self._body < self.limits.body_bytes_each and not self.flow.read_paused:
            self._refuse(408, "request_timeout", "the request's body came too slowly.")
            return
        self._body = 0
        self._set_alarm(self.limits.body_seconds, self._body_too_slow)

    def _set_alarm(self, seconds: float, ring: Any) -> None:
        self._alarm = self.loop.call_later(seconds, ring)

    def _stop_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer and close, unless an answer is on its way already."""
        self._stop_alarm()
        if self.cycle is None or not self.cycle.response_started or self.cycle.response_complete:
            kind = "invalid_request_error" if status < 500 else "server_error"
            body = json.dumps(error_body(message, kind=kind, code=code)).encode()
            head = (
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
                "content-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()
