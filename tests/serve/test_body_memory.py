"""The bodies of all requests together are bounded, and what ended holds nothing."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic_core import from_json
from starlette.types import Receive, Scope, Send

from serve.gateway.body_memory import parsed_size
from serve.gateway.check_body import CheckBody
from serve.gateway.errors import send_json
from serve.requests.bounds import Bounds
from serve.settings import ServeSettings

SIZE = 2048
BODY = json.dumps({"model": "base", "prompt": "a" * (SIZE - 32)}).encode().ljust(SIZE)
BOUNDS = Bounds(lambda: ["base"], max_model_len=5000, vocabulary=1000)


def size_of(value: Any) -> int:
    inner = [*value, *value.values()] if isinstance(value, dict) else value
    inside = sum(map(size_of, inner)) if isinstance(inner, list) else 0
    return sys.getsizeof(value) + inside


@pytest.mark.parametrize(
    "value",
    [
        [{}] * 1000,
        [{"a": 1}] * 1000,
        [[]] * 1000,
        [[1000]] * 1000,
        [1000 + n for n in range(1000)],
        ["ab"] * 1000,
        {str(n): n for n in range(1000)},
        [{"role": "user", "content": "Tell me. " * 20}] * 50,
        "a" * 100_000,
    ],
)
def test_a_parsed_body_takes_no_more_than_is_reckoned(value: Any) -> None:
    raw = json.dumps(value, separators=(",", ":")).encode()
    assert size_of(from_json(raw)) <= parsed_size(raw)


class Engine:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.there = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.there += 1
        await self.go_on.wait()
        await send_json(send, 200, {})


async def post(
    client: httpx.AsyncClient, content: bytes | AsyncIterator[bytes] = BODY
) -> httpx.Response:
    headers = {"content-type": "application/json"}
    return await client.post("/v1/completions", content=content, headers=headers)


async def in_pieces() -> AsyncIterator[bytes]:
    for start in range(0, SIZE, 100):
        yield BODY[start : start + 100]


def test_bodies_together_are_bounded_and_given_back() -> None:
    async def scenario() -> None:
        engine = Engine()
        room = 3 * (SIZE + parsed_size(BODY))
        settings = ServeSettings(max_body_bytes=SIZE, max_bodies_bytes=room)
        app = CheckBody(engine, BOUNDS, settings)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://test"
        ) as client:
            bad = [await post(client, b"x" * SIZE) for _ in range(10)]
            assert {answer.status_code for answer in bad} == {400}

            held = [asyncio.create_task(post(client)) for _ in range(3)]
            while engine.there < 3:
                await asyncio.sleep(0.001)
            for content in (BODY, in_pieces()):
                refused = await post(client, content)
                assert refused.status_code == 429
                assert refused.headers["retry-after"] == "2"
                assert refused.headers["connection"] == "close"
                assert refused.json()["error"]["code"] == "server_overloaded"

            held[0].cancel()
            await asyncio.wait([held[0]])
            engine.go_on.set()
            assert (await post(client, in_pieces())).status_code == 200
            assert [(await each).status_code for each in held[1:]] == [200, 200]
            again = await asyncio.gather(*(post(client) for _ in range(3)))
            assert [answer.status_code for answer in again] == [200] * 3

    asyncio.run(scenario())
