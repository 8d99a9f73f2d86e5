"""The server's life: listen, load, serve, drain, end.

    listening ──► loading ──► ready ──► draining ──► ended (exit 0)
                     │          │   first signal ▲
                     │          └─ engine died ──► failed (exit 1)
                     ├─ engine did not start ────► failed (exit 1)
                     └─ signal ──────────────────► ended (exit 0), at once

HTTP is answered from the first line on; the gateway says what the server can do meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    closing,
    contextmanager,
    suppress,
)
from typing import Any, Protocol

import psutil
import uvicorn

from serve.connections import ConnectionLimits, allow_connections, guarded
from serve.device import choose_device
from serve.errors import EngineFailed
from serve.gateway.chain import EngineApp, Gateway
from serve.gateway.in_flight import ENGINE_DIED, SHUTDOWN, Cut, InFlight
from serve.gateway.observe import Observe
from serve.gateway.readiness import Readiness
from serve.keys.opening import Keys, open_keys
from serve.listening import address_of, is_loopback, listen
from serve.model import ServedModel
from serve.quiet_exit import silence_teardown
from serve.settings import ServeSettings
from serve.vllm_app import start_engine

_SECONDS_BETWEEN_ENGINE_CHECKS = 0.5


class Engine(Protocol):
    """What the server needs of an engine; `serve.vllm_app.VllmEngine` is the real one."""

    @property
    def dead(self) -> bool:
        """Whether it can no longer answer."""

    def app(self) -> AbstractAsyncContextManager[EngineApp]:
        """What answers requests, usable inside the context."""

    def shutdown(self) -> None:
        """End it; blocks."""


def run_server(
    model: ServedModel,
    settings: ServeSettings,
    *,
    on_ready: Callable[[str, str], None] | None = None,
    listening: socket.socket | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish the requests in flight and return.

    Call it from the main thread of a process that ends afterwards. A signal while the model
    is loading ends the process here and now (exit code 0): there is nothing to finish, and
    vLLM's start-up cannot be interrupted in any gentler way.

    Args:
        model: from `serve.model.open_model`.
        settings: how to serve it.
        on_ready: called with the base URL (``http://127.0.0.1:8000/v1``) and with who may ask,
            once requests can be answered.
        listening: a socket that listens already, instead of the settings' host and port.

    Raises:
        PortInUse, AddressNotUsable, DeviceNotAvailable, DatabaseNotUsable: before anything is
            loaded.
        EngineFailed: the engine did not start, or died.
    """
    device = choose_device(settings.device)
    with open_keys(settings) as keys:
        listening = listening or listen(keys.host(settings.host), settings.port)
        silence_teardown()
        url = f"{address_of(listening)}/v1"
        loop_factory = uvicorn.Config("", loop="auto").get_loop_factory()
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            served = runner.run(
                serve(
                    lambda: start_engine(model, settings, device),
                    listening,
                    settings,
                    on_ready=lambda: on_ready(url, keys.said(settings.host)) if on_ready else None,
                    keys=keys,
                )
            )
            if not served:
                _end_now()


async def serve(
    start: Callable[[], Engine],
    listening: socket.socket,
    settings: ServeSettings,
    *,
    on_ready: Callable[[], None],
    keys: Keys | None = None,
) -> bool:
    """Answer HTTP on ``listening`` while ``start`` brings up an engine, and then with it.

    Without ``keys`` the server knows none. Then, and while none was made, it answers only on an
    address that other machines do not reach.

    Returns:
        True after a drain; False if a signal came while ``start`` was still running, in
        which case its thread goes on until the process ends.

    Raises:
        EngineFailed: ``start`` failed, or the engine died.
    """
    readiness = Readiness()
    keys = keys or Keys()
    keys.always_required = not is_loopback(listening.getsockname()[0])
    with closing(Gateway(settings, keys)) as gateway, _stop_signals() as (first, second):
        async with _http(gateway.outside(readiness), listening, settings):
            loading = _in_thread(start)
            awaited: list[asyncio.Future[Any]] = [loading, first]
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            if not loading.done():
                readiness.drain()
                return False
            try:
                engine = loading.result()
            except BaseException:
                readiness.fail()
                raise
            try:
                async with engine.app() as engine_app:
                    inside = gateway.around(engine_app)
                    readiness.ready(inside.app)
                    on_ready()
                    async with inside.working():
                        try:
                            await _until_stopped(engine, first)
                        except EngineFailed:
                            readiness.fail()
                            await _cut(inside.in_flight, ENGINE_DIED)
                            raise
                        readiness.drain()
                    await _drain(inside.in_flight, settings.drain_seconds, second)
            except BaseException:
                readiness.fail()
                raise
            finally:
                await asyncio.to_thread(engine.shutdown)
    return True


async def _until_stopped(engine: Engine, stop: asyncio.Future[None]) -> None:
    while not stop.done():
        if engine.dead:
            raise EngineFailed(
                "the engine died; its last output is above. Start the server again; if it "
                "was killed for memory, lower kv_cache_gib (CPU) or gpu_memory_utilization."
            )
        await asyncio.wait([stop], timeout=_SECONDS_BETWEEN_ENGINE_CHECKS)


async def _drain(in_flight: InFlight, seconds: float, at_once: asyncio.Future[None]) -> None:
    """Let requests finish; cut them after ``seconds``, or on a second signal."""
    finished = asyncio.create_task(in_flight.wait_until_none())
    await asyncio.wait([finished, at_once], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finished.cancel()
    await _cut(in_flight, SHUTDOWN)


async def _cut(in_flight: InFlight, why: Cut) -> None:
    """End what is under way, and give its clients' answers time to go out."""
    in_flight.cut_all(why)
    with suppress(TimeoutError):
        await asyncio.wait_for(in_flight.wait_until_none(), 5)


@contextmanager
def _stop_signals() -> Iterator[tuple[asyncio.Future[None], asyncio.Future[None]]]:
    """Futures that are done on the first and on the second SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    first: asyncio.Future[None] = loop.create_future()
    second: asyncio.Future[None] = loop.create_future()

    def note() -> None:
        for future in (first, second):
            if not future.done():
                future.set_result(None)
                return

    stops = (signal.SIGTERM, signal.SIGINT)
    for stop in stops:
        loop.add_signal_handler(stop, note)
    try:
        yield first, second
    finally:
        for stop in stops:
            loop.remove_signal_handler(stop)


class _HttpServer(uvicorn.Server):
    """Uvicorn without its signal handlers: stopping is decided by `serve`."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def _http(
    app: Observe, listening: socket.socket, settings: ServeSettings
) -> AsyncIterator[None]:
    """Answer HTTP inside the context; on leaving, close every connection."""
    limits = ConnectionLimits(connections=allow_connections(settings.max_connections))
    config = uvicorn.Config(
        app,
        http=guarded(limits, app.refused),
        ws="none",
        lifespan="off",
        log_config=None,
        # Not its warnings: a line for every invalid request is the sender's to choose.
        log_level="error",
        access_log=False,
        # Longer than clients' pools commonly keep a connection, so that they close it, not we.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=2,
    )
    server = _HttpServer(config)
    running = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await running


def _in_thread(start: Callable[[], Engine]) -> asyncio.Future[Engine]:
    """Run ``start`` in a daemon thread: unlike an executor's, it holds up no exit."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Engine] = loop.create_future()

    def settle(engine: Engine | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        elif engine is not None:
            future.set_result(engine)

    def run() -> None:
        engine, failure = None, None
        try:
            engine = start()
        except BaseException as error:
            failure = error
        # The loop is closed if a signal ended the server meanwhile; no one waits then.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, engine, failure)

    threading.Thread(target=run, name="engine-start", daemon=True).start()
    return future


def _end_now() -> None:
    """End this process and its children without running anything else in them."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()
    os._exit(0)
