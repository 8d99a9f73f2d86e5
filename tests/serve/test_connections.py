"""Hostile connections over real sockets: refused or closed, and the server goes on."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from raw_http import GET, LIMITS, ask, refused, sends, served, talk

from serve.connections import guarded


@pytest.mark.parametrize(
    "pieces",
    [
        [GET + b"x: " + b"a" * 5000 + b"\r\n\r\n"],
        [GET + b"x: ", *[b"a" * 1000] * 6, b"\r\n\r\n"],
        [b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nhost: x\r\n\r\n"],
        [GET + b"x: ", *[b"a" * 65536] * 16],
    ],
    ids=["one piece", "pieces", "path", "a megabyte without end"],
)
def test_a_head_that_is_too_large_is_refused(pieces: list[bytes]) -> None:
    said, seen = talk(sends(*pieces, pause=0.002))
    if said:  # the client may have had no time to read it: it was still sending
        assert refused(said) == (431, "headers_too_large")
    assert seen.bodies == [0], "only the second client's request may reach the app"


def test_too_many_headers_are_refused() -> None:
    said, seen = talk(sends(GET + b"".join(b"h%d: x\r\n" % n for n in range(30)) + b"\r\n"))
    assert refused(said) == (431, "too_many_headers")
    assert seen.bodies == [0]


@pytest.mark.parametrize("rubbish", [b"\x16\x03\x01\x02", b"GET\r\n\r\n", b"HELLO WORLD\r\n\r\n"])
def test_what_is_not_http_is_refused(rubbish: bytes) -> None:
    said, _ = talk(sends(rubbish))
    assert refused(said) == (400, "invalid_http")


def test_a_slow_head_is_given_up() -> None:
    said, seen = talk(sends(b"GET ", b"/ HT", b"TP/1", b".1\r\nhos", pause=0.12))
    assert refused(said) == (408, "request_timeout")
    assert seen.refused == [(408, "request_timeout")]
    assert seen.bodies == [0]


def test_a_connection_that_asks_nothing_is_closed() -> None:
    said, seen = talk(sends())
    assert (said, seen.refused) == (b"", [])


def test_a_second_head_that_is_slow_is_given_up_too() -> None:
    said, _ = talk(sends(GET + b"\r\n", b"GET / ", b"HT", b"TP", pause=0.15))
    first, second = said[: said.index(b"ok") + 2], said[said.index(b"ok") + 2 :]
    assert first.startswith(b"HTTP/1.1 200")
    assert refused(second) == (408, "request_timeout")


def test_a_body_that_trickles_is_given_up() -> None:
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n"
    said, seen = talk(sends(head, *[b"a"] * 2, pause=0.1))
    assert refused(said) == (408, "request_timeout")
    assert seen.left == 1
    exchange = seen.cut_short
    assert exchange
    assert f"x-request-id: {exchange.request_id}\r\n".encode() in said
    assert (exchange.cut_short, exchange.rejected) == (408, "request_timeout")
    assert seen.refused == [], "it would be counted twice"


def test_a_body_that_flows_may_take_its_time() -> None:
    head = b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2000\r\n\r\n"
    said, seen = talk(sends(head, *[b"a" * 200] * 10, pause=0.1))
    assert said.startswith(b"HTTP/1.1 200")
    assert seen.bodies[0] == 2000


def test_an_answer_may_take_longer_than_a_head() -> None:
    said, _ = talk(sends(b"GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
    assert said.startswith(b"HTTP/1.1 200")


def test_a_websocket_is_answered_as_any_request() -> None:
    upgrade = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    said, _ = talk(sends(GET + upgrade + b"sec-websocket-key: eA==\r\n\r\n", pause=0.1))
    assert said.startswith(b"HTTP/1.1 200")


def test_one_connection_too_many_is_refused() -> None:
    async def both() -> None:
        async with served() as (port, _):
            held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
            await asyncio.sleep(0.05)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert refused(await asyncio.wait_for(reader.read(), 5)) == (
                503,
                "too_many_connections",
            )
            writer.close()
            for _, other in held:
                other.close()
            await asyncio.sleep(0.1)
            assert (await ask(port)).startswith(b"HTTP/1.1 200")

    asyncio.run(both())


class Unread:
    """A transport whose client takes so much of what waits for it whenever an alarm rings."""

    def __init__(self, *takes: int) -> None:
        self.size, self.takes = 100, list(takes)
        self.alarms: list[tuple[float, Callable[..., None], int]] = []
        self.aborted = False
        protocol: Any = object.__new__(guarded(LIMITS, lambda *_: ""))
        protocol.transport = protocol.loop = self
        protocol._unread_alarm = None
        protocol._expect_reading()
        while self.alarms:
            _, ring, before = self.alarms.pop()
            self.size -= self.takes.pop(0)
            ring(before)

    def call_later(self, *alarm: Any) -> object:
        self.alarms.append(alarm)
        return alarm

    def get_write_buffer_size(self) -> int:
        return self.size

    def abort(self) -> None:
        self.aborted = True


def test_a_client_is_dropped_when_it_takes_nothing_more_not_when_it_is_slow() -> None:
    slow = Unread(30, 30, 1, 0)
    assert slow.aborted
    assert slow.takes == [], "dropped while it was still reading"


@pytest.mark.parametrize(("hard", "served_"), [(4096, 2000), (1024, 512), (256, 1)])
def test_no_more_connections_are_taken_than_there_are_files_for(hard: int, served_: int) -> None:
    program = f"""
import resource
from serve.connections import allow_connections
resource.setrlimit(resource.RLIMIT_NOFILE, (200, {hard}))
print(allow_connections(2000), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    asked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert asked.stdout.split() == [str(served_), str(min(hard, 2512))], asked.stderr
