"""HTTP as hostile and as unusual clients speak it: trailers, pipelining, upgrades, no reading."""

import asyncio
import socket

import pytest
from raw_http import GET, ask, refused, sends, served, talk

POST = b"POST / HTTP/1.1\r\nhost: x\r\n"
CLOSE = b"connection: close\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
H2C = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"


def test_trailers_without_end_are_refused() -> None:
    said, seen = talk(sends(POST + CHUNKED + b"1\r\na\r\n0\r\nx: ", *[b"a" * 1000] * 5, pause=0.01))
    assert refused(said) == (431, "headers_too_large")
    assert seen.left == 1


def test_trailers_are_not_taken_for_headers() -> None:
    said, seen = talk(sends(POST + CLOSE + CHUNKED + b"1\r\na\r\n0\r\nauthorization: me\r\n\r\n"))
    assert said.startswith(b"HTTP/1.1 200")
    assert b"authorization" not in dict(seen.headers[0])


def test_a_body_in_many_small_chunks_is_let_through() -> None:
    said, seen = talk(sends(POST + CLOSE + CHUNKED, b"1\r\na\r\n" * 3000, b"0\r\n\r\n"))
    assert said.startswith(b"HTTP/1.1 200")
    assert seen.bodies[0] == 3000


def test_a_client_that_does_not_read_is_dropped() -> None:
    async def both() -> None:
        async with served() as (port, seen):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n")
                for _ in range(50):
                    await asyncio.sleep(0.1)
                    if seen.left:
                        break
            assert seen.left == 1
            assert (await ask(port)).startswith(b"HTTP/1.1 200")

    asyncio.run(both())


def test_a_body_of_no_use_any_more_is_not_waited_for() -> None:
    head = b"POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n"
    dropped: list[bool] = []

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        assert (await reader.readline()).startswith(b"HTTP/1.1 401")
        for _ in range(60):  # faster than a body must come
            writer.write(b"a" * 50)
            await asyncio.sleep(0.05)
            if writer.transport.is_closing() or reader.at_eof():
                dropped.append(True)
                return

    talk(drip)
    assert dropped


@pytest.mark.parametrize(
    "pieces",
    [
        [POST + H2C + b"content-length: 5\r\n\r\nhello" + GET + CLOSE + b"\r\n"],
        [POST + H2C + b"content-length: 5\r\n\r\n", b"hel", b"lo", GET + CLOSE + b"\r\n"],
        [POST + H2C[:30], H2C[30:] + CHUNKED, b"5\r\nhello\r\n0\r\n\r\n" + GET + CLOSE, b"\r\n"],
    ],
    ids=["one piece", "pieces", "chunked"],
)
def test_a_body_is_not_lost_by_an_offer_of_http_2(pieces: list[bytes]) -> None:
    """Java's HttpClient makes it with every request."""
    said, seen = talk(sends(*pieces, pause=0.02))
    assert said.count(b"HTTP/1.1 200") == 2
    assert seen.bodies[:2] == [5, 0]
    assert not {b"upgrade", b"http2-settings"} & set(dict(seen.headers[0]))


def test_an_offer_of_http_2_and_a_close_closes() -> None:
    asked = POST + b"connection: close, upgrade\r\nupgrade: h2c\r\ncontent-length: 1\r\n\r\na"
    said, seen = talk(sends(asked))
    assert said.startswith(b"HTTP/1.1 200")
    assert seen.bodies[0] == 1


def test_pipelined_requests_are_answered_in_their_order() -> None:
    slow = b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n"
    said, seen = talk(sends(slow + POST + b"content-length: 3\r\n\r\nabc" + GET + CLOSE + b"\r\n"))
    assert said.count(b"HTTP/1.1 200") == 3
    assert seen.bodies[:3] == [0, 3, 0]


def test_too_many_pipelined_requests_end_the_connection() -> None:
    said, seen = talk(sends((GET + b"\r\n") * 1000, pause=0.1))
    assert b"HTTP/1.1 4" not in said
    assert len(seen.bodies) < 20


def test_a_bad_request_is_not_told_in_an_earlier_ones_answer() -> None:
    said, _ = talk(sends(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n", b"RUBBISH\r\n\r\n", pause=0.1))
    assert said == b""


@pytest.mark.parametrize(
    "request_",
    [
        POST + b"content-length: 5\r\n" + CHUNKED + b"0\r\n\r\n",
        POST + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        POST + b"content-length: -5\r\n\r\nhello",
        POST + b"content-length: 99999999999999999999999\r\n\r\n",
        POST + b"transfer-encoding: xchunked\r\n\r\nhello",
        POST + CHUNKED + b"ZZ\r\n",
        POST + CHUNKED + b"fffffffffffffffffff\r\n",
        b"CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
        GET + b"a: b\r\n c\r\n\r\n",
        GET + b"a: b\x00c\r\n\r\n",
        b"GET / HTTP/1.1\nhost: x\n\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\nhost: x\r\n\r\n",
    ],
)
def test_what_two_parsers_might_read_differently_is_refused(request_: bytes) -> None:
    said, _ = talk(sends(request_))
    assert refused(said) == (400, "invalid_http")
