"""A server with small limits on connections, and what a raw client says to it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import uvicorn
from starlette.types import Message, Receive, Scope, Send

from serve.connections import ConnectionLimits, guarded
from serve.gateway.exchange import Exchange, exchange_of
from serve.listening import listen

LIMITS = ConnectionLimits(
    connections=5,
    head_bytes=4096,
    headers=20,
    head_seconds=0.3,
    body_bytes_each=100,
    body_seconds=0.3,
    write_seconds=0.5,
)
GET = b"GET / HTTP/1.1\r\nhost: x\r\n"


class Seen:
    """What the app got."""

    def __init__(self) -> None:
        self.bodies: list[int] = []
        self.headers: list[list[tuple[bytes, bytes]]] = []
        self.left = 0
        self.refused: list[tuple[int, str]] = []
        """What was answered before a request was there for the app."""
        self.cut_short: Exchange | None = None
        """The request whose body did not come."""


@asynccontextmanager
async def served() -> AsyncIterator[tuple[int, Seen]]:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/refuse":
            await answer(send, 401, b"no")
            return
        if scope["path"] == "/flood":
            await flood(send, receive, seen)
            return
        size, more = 0, True
        while more:
            message: Message = await receive()
            if message["type"] == "http.disconnect":
                seen.left += 1
                seen.cut_short = exchange_of(scope)
                return
            size += len(message["body"])
            more = message["more_body"]
        seen.bodies.append(size)
        seen.headers.append(list(scope["headers"]))
        if scope["path"] == "/slow":
            await asyncio.sleep(1)
        await answer(send, 200, b"ok")

    def refuse(status: int, code: str, client: str | None) -> str:
        assert client == "127.0.0.1"
        seen.refused.append((status, code))
        return "req-1"

    config = uvicorn.Config(
        app,
        http=guarded(LIMITS, refuse),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
    )
    server = uvicorn.Server(config)
    listening = listen("127.0.0.1", 0)
    task = asyncio.create_task(server._serve([listening]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield listening.getsockname()[1], seen
    finally:
        server.should_exit = True
        await task


async def answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def flood(send: Send, receive: Receive, seen: Seen) -> None:
    """Answer without end, until the client has left."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await receive()
    left = asyncio.ensure_future(receive())
    while not left.done():
        await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        await asyncio.sleep(0)
    seen.left += 1


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def talk(what: Talk) -> tuple[bytes, Seen]:
    """All that the server says to a client; afterwards the server must answer another."""

    async def both() -> tuple[bytes, Seen]:
        async with served() as (port, seen):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                await what(reader, writer)
                said = await asyncio.wait_for(reader.read(), 5)
            except ConnectionError:
                said = b""
            writer.close()
            assert (await ask(port)).startswith(b"HTTP/1.1 200")
            return said, seen

    return asyncio.run(both())


async def ask(port: int, path: bytes = b"/") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET " + path + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    said = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return said


def refused(said: bytes) -> tuple[int, str]:
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert b"content-type: application/json" in head
    assert b"\r\nx-request-id: req-" in head
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return int(head.split()[1]), error["code"]


def sends(*pieces: bytes, pause: float = 0.0) -> Talk:
    async def what(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return what
