"""The server's life with a fake engine, over real HTTP and real signals."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from serve.app import Engine, serve
from serve.errors import EngineFailed
from serve.gateway.chain import EngineApp
from serve.listening import address_of, listen
from serve.requests.bounds import Bounds
from serve.settings import ServeSettings

ASKED = {"model": "stub", "prompt": "Once"}


class FakeEngine:
    """Streams two events, the second only once `go_on` is set."""

    def __init__(self) -> None:
        self.dead = False
        self.ended = False
        self.go_on = asyncio.Event()
        self.client_left = asyncio.Event()

    @asynccontextmanager
    async def app(self) -> AsyncIterator[EngineApp]:
        yield EngineApp(self._answer, Bounds(lambda: ["stub"], 512, 100))

    def shutdown(self) -> None:
        self.ended = True

    async def _answer(self, _scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: one\n\n", "more_body": True})
        left = asyncio.create_task(receive())
        more = asyncio.create_task(self.go_on.wait())
        await asyncio.wait([left, more], return_when=asyncio.FIRST_COMPLETED)
        if left.done():
            self.client_left.set()
            return
        left.cancel()
        await send({"type": "http.response.body", "body": b"data: two\n\n"})


Scenario = Callable[[httpx.AsyncClient, asyncio.Event], Awaitable[None]]


def live(
    scenario: Scenario,
    start: Callable[[], Engine],
    drain_seconds: float = 20,
    host: str = "127.0.0.1",
) -> bool:
    """Run the scenario's client against a server; what `serve` returned or raised."""

    async def both() -> bool:
        ready = asyncio.Event()
        listening = listen(host, 0)
        server = asyncio.create_task(
            serve(start, listening, ServeSettings(drain_seconds=drain_seconds), on_ready=ready.set)
        )
        url = address_of(listening)
        try:
            async with httpx.AsyncClient(base_url=url, timeout=10) as client:
                await scenario(client, ready)
        except BaseException:
            server.cancel()
            raise
        return await server

    return asyncio.run(both())


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


async def draining(client: httpx.AsyncClient) -> None:
    while (await client.get("/ready")).json()["status"] != "draining":
        await asyncio.sleep(0.02)


def test_events_reach_the_client_one_by_one() -> None:
    engine = FakeEngine()

    async def scenario(client: httpx.AsyncClient, ready: asyncio.Event) -> None:
        await ready.wait()
        async with client.stream("POST", "/v1/completions", json=ASKED) as answer:
            chunks = answer.aiter_raw()
            # The second event does not exist yet, so the first was not held back for it.
            assert await anext(chunks) == b"data: one\n\n"
            engine.go_on.set()
            assert await anext(chunks) == b"data: two\n\n"
        stop()

    assert live(scenario, lambda: engine)


def test_a_client_that_leaves_is_noticed_by_the_app() -> None:
    engine = FakeEngine()

    async def scenario(client: httpx.AsyncClient, ready: asyncio.Event) -> None:
        await ready.wait()
        async with client.stream("POST", "/v1/completions", json=ASKED) as answer:
            await anext(answer.aiter_raw())
        await asyncio.wait_for(engine.client_left.wait(), 5)
        stop()

    assert live(scenario, lambda: engine)


def test_what_is_refused_below_http_is_in_the_metrics() -> None:
    async def scenario(client: httpx.AsyncClient, ready: asyncio.Event) -> None:
        await ready.wait()
        reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        writer.write(b"HELLO\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        assert head.startswith(b"HTTP/1.1 400")
        assert b"x-request-id: req-" in head
        counted = (
            'llmkit_rejections_total{code="invalid_http",key="none",model="none",route="other"}'
        )
        assert f"{counted} 1.0" in (await client.get("/metrics")).text
        stop()

    assert live(scenario, FakeEngine)


def test_draining_refuses_new_requests_and_finishes_those_in_flight() -> None:
    engine = FakeEngine()

    async def scenario(client: httpx.AsyncClient, ready: asyncio.Event) -> None:
        await ready.wait()
        async with client.stream("POST", "/v1/completions", json=ASKED) as answer:
            chunks = answer.aiter_raw()
            await anext(chunks)
            stop()
            await draining(client)
            assert (await client.post("/v1/completions")).status_code == 503
            assert not engine.ended
            engine.go_on.set()
            assert await anext(chunks) == b"data: two\n\n"

    assert live(scenario, lambda: engine)
    assert engine.ended


@pytest.mark.parametrize("drain_seconds", [0.3, 60])
def test_a_request_is_cut_after_the_drain_or_a_second_signal(drain_seconds: float) -> None:
    engine = FakeEngine()

    async def scenario(client: httpx.AsyncClient, ready: asyncio.Event) -> None:
        await ready.wait()
        async with client.stream("POST", "/v1/completions", json=ASKED) as answer:
            chunks = answer.aiter_raw()
            await anext(chunks)
            stop()
            await draining(client)
            if drain_seconds == 60:
                stop()
            assert b"server_shutdown" in await anext(chunks)

    assert live(scenario, lambda: engine, drain_seconds)
    assert engine.ended


def test_a_signal_while_loading_stops_the_server_at_once() -> None:
    loading = threading.Event()

    def start() -> Engine:
        loading.wait(20)
        return FakeEngine()

    async def scenario(client: httpx.AsyncClient, ready: asyncio.Event) -> None:
        assert (await client.get("/ready")).json()["status"] == "loading"
        stop()

    try:
        assert not live(scenario, start)
    finally:
        loading.set()


def test_an_engine_that_does_not_start_ends_the_server_with_its_reason() -> None:
    def start() -> Engine:
        raise EngineFailed("no such dtype")

    async def scenario(client: httpx.AsyncClient, ready: asyncio.Event) -> None: ...

    with pytest.raises(EngineFailed, match="no such dtype"):
        live(scenario, start)


def test_an_engine_that_dies_ends_streams_with_an_error_and_the_server_with_its_reason() -> None:
    class Lingering(FakeEngine):
        def shutdown(self) -> None:
            time.sleep(0.5)
            super().shutdown()

    engine = Lingering()

    async def scenario(client: httpx.AsyncClient, ready: asyncio.Event) -> None:
        await ready.wait()
        async with client.stream("POST", "/v1/completions", json=ASKED) as answer:
            chunks = answer.aiter_raw()
            await anext(chunks)
            engine.dead = True
            assert b'"engine_died"' in await anext(chunks)
            # Readiness is over by the time that clients are told.
            assert (await client.get("/ready")).status_code == 503

    with pytest.raises(EngineFailed, match="died"):
        live(scenario, lambda: engine)
    assert engine.ended


def test_a_socket_that_other_machines_reach_is_not_open_without_keys() -> None:
    engine = FakeEngine()

    async def scenario(client: httpx.AsyncClient, ready: asyncio.Event) -> None:
        await ready.wait()
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/ready")).status_code == 200
        for path in ("/v1/models", "/metrics"):
            assert (await client.get(path)).status_code == 401
        assert (await client.post("/v1/completions")).status_code == 401
        stop()

    assert live(scenario, lambda: engine, host="0.0.0.0")
