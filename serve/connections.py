"""Guards on connections, below HTTP: what comes too large, too slowly or too often, or is not read.

uvicorn's parser (httptools) bounds none of them: a head or a trailer of any size is collected, and
a client that sends one byte a minute, or reads none, holds its connection for ever.
"""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

import httptools
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve.gateway.errors import error_body
from serve.gateway.exchange import exchange_of
from serve.http_upgrade import head_without_upgrade


@dataclass(frozen=True)
class ConnectionLimits:
    """What a client may do before its request is complete."""

    connections: int = 2000
    """Most connections at a time."""

    head_bytes: int = 32 * 1024
    """Largest request line and headers together."""

    headers: int = 100
    """Most headers."""

    head_seconds: float = 10.0
    """Longest time until a head is complete."""

    pipelined: int = 8
    """Most requests that may come before the answer to an earlier one is complete. Each costs a
    hundred times the bytes that it takes to send, and hardly any client does this."""

    body_bytes_each: int = 5 * 1024
    """What must come of a body in every span of ``body_seconds``, while it is being read: at
    least 500 bytes a second, as Apache has it."""

    body_seconds: float = 10.0

    write_seconds: float = 60.0
    """Longest time in which a client may take nothing of what waits for it."""


class _Refused(Exception):
    """Ends the parsing of a request."""


OnRefused = Callable[[int, str, str | None], str]
"""Told the status, the error's code and the client's address of an answer that no app gave; says
which request id it carries."""


def guarded(limits: ConnectionLimits, on_refused: OnRefused) -> type[HttpToolsProtocol]:
    """Uvicorn's HTTP protocol with these limits."""

    class Guarded(_Guarded):
        pass

    Guarded.limits, Guarded.on_refused = limits, staticmethod(on_refused)
    return Guarded


_FILES_BESIDE = 512
"""Open files for all else: the engine's sockets, logs, databases, libraries."""


def allow_connections(connections: int) -> int:
    """Raise this process's limit of open files, as far as it may, to serve so many.

    Returns:
        How many can be served: fewer where the limit is too low. One more would otherwise take
        the files that the rest of the server needs.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _FILES_BESIDE
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(1, most - _FILES_BESIDE)


class _Guarded(HttpToolsProtocol):
    """Refuses in OpenAI's shape, with the connection closed, what exceeds its limits."""

    limits: ConnectionLimits
    on_refused: OnRefused

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reading = "head"
        self._begun = self._head = self._body = self._beside_body = 0
        self._offers_upgrade = False
        self._alarm: asyncio.TimerHandle | None = None
        self._unread_alarm: asyncio.TimerHandle | None = None
        self._refusal = (400, "invalid_http", "this is not a valid HTTP request.")

    # As uvicorn has it: asyncio's own is for any transport, the HTTP protocols' for streams.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse(503, "too_many_connections", "the server has no free connection left.")
            return
        self._set_alarm(self.limits.head_seconds, self._head_too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_alarm()
        self._stop_unread_alarm()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        # Of a connection that is being closed, the client must still take all that is left.
        if not self.transport.is_closing():
            self._stop_unread_alarm()
        super().resume_writing()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._expect_reading()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        begun, body = self._begun, self._body
        self._unset_keepalive_if_required()
        self._parse(data)
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
            # Trailers are collected, whatever their size, until they are complete.
            if self._body > body or begun != self._begun:
                self._beside_body = 0
            else:
                self._beside_body += len(data)
            if self._beside_body > self.limits.head_bytes:
                self._refuse(*self._too_large())
            elif self._alarm is None:
                self._body = 0
                self._set_alarm(self.limits.body_seconds, self._body_too_slow)
        else:
            self._stop_alarm()

    def _parse(self, data: bytes) -> None:
        """Feed the parser, leaving every request at HTTP/1.1."""
        pieces: list[bytes | memoryview] = [memoryview(data)]
        while pieces:
            piece = pieces.pop()
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as upgrade:
                # The parser ends here; another takes up the request as if nothing was offered.
                method, version = self.parser.get_method(), self.parser.get_http_version()
                head = head_without_upgrade(method, self.url, version, self.headers)
                pieces += [piece[upgrade.args[0] :], head]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            except httptools.HttpParserError:
                self._refuse(*self._refusal)
                return

    def on_message_begin(self) -> None:
        self._reading = "head"
        self._head = 0
        self._begun += 1
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading == "body":
            return  # a trailer; the headers were complete, and the app may have them already
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
        self._offers_upgrade = self.parser.should_upgrade()
        if self._offers_upgrade:
            if self.parser.get_method() == b"CONNECT":
                raise _Refused
            return
        if len(self.pipeline) >= self.limits.pipelined:
            raise _Refused
        self._reading = "body"
        self._stop_alarm()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._offers_upgrade:
            return
        self._reading = "nothing"
        super().on_message_complete()

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
            self._close()  # a connection on which nothing was asked

    def _body_too_slow(self) -> None:
        if self.cycle.response_complete:
            self._close()  # refused before all of it had come; the rest is of no use
            return
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
        """Close, with an answer if none to another request has to come before it."""
        self._stop_alarm()
        if self._may_answer():
            kind = "invalid_request_error" if status < 500 else "server_error"
            body = json.dumps(error_body(message, kind=kind, code=code)).encode()
            head = (
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
                f"x-request-id: {self._report(status, code)}\r\n"
                "content-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self._close()

    def _report(self, status: int, code: str) -> str:
        """Have the refusal counted and logged; its request id."""
        if self._reading == "body":
            # The app has this request, and ends it when the connection closes.
            exchange = exchange_of(cast("Scope", self.scope))
            exchange.cut_short, exchange.rejected = status, code
            return exchange.request_id
        return self.on_refused(status, code, self.client[0] if self.client else None)

    def _may_answer(self) -> bool:
        if self._reading == "body":
            return not self.pipeline and not self.cycle.response_started
        return self.cycle is None or self.cycle.response_complete

    def _close(self) -> None:
        self.transport.close()
        self._expect_reading()

    def _expect_reading(self) -> None:
        """Drop the connection unless the client goes on reading what waits for it."""
        if self._unread_alarm is None:
            self._unread_alarm = self.loop.call_later(
                self.limits.write_seconds, self._unread, self.transport.get_write_buffer_size()
            )

    def _unread(self, before: int) -> None:
        self._unread_alarm = None
        if self.transport.get_write_buffer_size() < before:
            self._expect_reading()
        else:
            self.transport.abort()

    def _stop_unread_alarm(self) -> None:
        if self._unread_alarm is not None:
            self._unread_alarm.cancel()
            self._unread_alarm = None
