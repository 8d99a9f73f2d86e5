"""A request's body: read once within bounds, and given again to the layers below."""

from __future__ import annotations

import json
from typing import Any

from starlette.types import Message, Receive, Scope

from serve.gateway.body_memory import Share
from serve.requests.refusal import RequestRefused


class ClientLeft(Exception):
    """The client went away before its body had come."""


async def read_body(scope: Scope, receive: Receive, largest: int, share: Share) -> bytes:
    """The whole body; what has come of it is counted in ``share``.

    Raises:
        BodiesFull: the bodies of all requests together take too much memory.
        RequestRefused: 413, as soon as the header or what has come says that it is too large.
        ClientLeft: there is no one to answer any more.
    """
    announced = _header(scope, b"content-length")
    if announced.isdigit() and int(announced[:20]) > largest:
        raise _too_large(largest)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        # Nearly always: one message.
        body: bytes = message.get("body", b"")
        if len(body) > largest:
            raise _too_large(largest)
        share.take(len(body))
        return body
    read = bytearray()
    while True:
        if message["type"] != "http.request":
            raise ClientLeft
        piece = message.get("body", b"")
        share.take(len(piece))
        read += piece
        if len(read) > largest:
            raise _too_large(largest)
        if not message.get("more_body", False):
            return bytes(read)
        message = await receive()


def is_json(scope: Scope) -> bool:
    """Whether the body calls itself JSON."""
    media = _header(scope, b"content-type").partition(b";")[0].strip().lower()
    return media == b"application/json" and not _header(scope, b"content-encoding")


class Replay:
    """A ``receive`` that gives a body once more, and then what the client does."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        """The body, then the client's messages."""
        body, self._body = self._body, None
        if body is None:
            return await self._receive()
        return {"type": "http.request", "body": body, "more_body": False}


def with_body(scope: Scope, body: Any, receive: Receive) -> tuple[Scope, Replay]:
    """A request with a JSON value in place of a body that has been received."""
    content = json.dumps(body, ensure_ascii=False).encode()
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
    headers.append((b"content-length", str(len(content)).encode()))
    return {**scope, "headers": headers}, Replay(content, receive)


def _header(scope: Scope, name: bytes) -> bytes:
    for key, value in scope["headers"]:
        if key == name:
            assert isinstance(value, bytes)
            return value
    return b""


def _too_large(largest: int) -> RequestRefused:
    return RequestRefused(
        f"the body is larger than {largest} bytes, which is this server's limit (max_body_bytes).",
        code="request_too_large",
        status=413,
    )
