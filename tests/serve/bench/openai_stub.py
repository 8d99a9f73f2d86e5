"""A stub of an OpenAI-compatible server: answers of exactly the length that is asked for."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web


class Stub:
    """What it was asked, how many at once, and how it answers."""

    def __init__(self) -> None:
        self.seconds_per_token = 0.0
        self.status = 200
        self.breaks_off = False
        self.data = "data: "
        self.events: list[Any] | None = None
        """In place of an answer."""
        self.listed: Any = {"data": [{"id": "stub"}]}
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.under_way = 0
        self.most_under_way = 0

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.keys.add(request.headers.get("authorization"))
        if self.status != 200:
            error = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}
            return web.json_response(error, status=self.status)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            return await self._answer(request, body)
        finally:
            self.under_way -= 1

    async def _answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if self.events is not None and not body["stream"]:
            return web.json_response(self.events[0])
        length = body["max_tokens"]
        usage = {"prompt_tokens": 3, "completion_tokens": length}
        if not body["stream"]:
            await asyncio.sleep(length * self.seconds_per_token)
            return web.json_response({"choices": [], "usage": usage})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        if self.events is not None:
            for event in self.events:
                await self._event(response, event)
            return response
        await self._event(response, {"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        for _ in range(length):
            await asyncio.sleep(self.seconds_per_token)
            # A text that quotes what the client looks for must not be taken for it.
            await self._event(response, {"choices": [{"delta": {"content": '"usage":{'}}]})
        if self.breaks_off:
            await self._event(response, {"error": {"code": "server_shutdown"}})
            return response
        await self._event(response, {"choices": [], "usage": usage})
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _event(self, response: web.StreamResponse, event: Any) -> None:
        text = json.dumps(event, separators=(",", ":"))
        await response.write(f"{self.data}{text}\n\n".encode())

    async def models(self, _request: web.Request) -> web.Response:
        return web.json_response(self.listed)


@contextmanager
def stub_server() -> Iterator[tuple[str, Stub]]:
    """Its base URL and itself, in a thread of its own for as long as the block lasts."""
    stub = Stub()
    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", stub.chat)
    app.router.add_get("/v1/models", stub.models)
    runner = web.AppRunner(app)

    async def start() -> int:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return int(runner.addresses[0][1])

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    port = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield f"http://127.0.0.1:{port}/v1", stub
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
