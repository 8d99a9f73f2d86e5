"""What counting, logging and tracing cost: CPU time a request and a streamed chunk, without HTTP.

Observe, Account and EngineTokens stand around a stub that streams, once with one chunk and once
with 1,001; the same stub alone is taken off. The median of ``--repeats`` turns counts, each until
the threads that write the log and send the spans have nothing left. Goals for the whole gateway:
150 and 5 microseconds.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

# This file's own folder has a script that would hide the package of the same name.
sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).parent]

from serve.access_log import AccessLog
from serve.gateway.account import Account
from serve.gateway.engine_tokens import EngineTokens, counted
from serve.gateway.observe import Observe
from serve.metrics.figures import Figures
from serve.tracing import Tracing

MANY = 1001
CHUNK = b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":" word"}}]}\n\n'
HEADERS = [
    *((b"host", b"localhost"), (b"accept", b"*/*"), (b"user-agent", b"benchmark")),
    *((b"content-type", b"application/json"), (b"content-length", b"120")),
    (b"authorization", b"Bearer sk-llmkit-0123456789"),
]
OUTPUT = SimpleNamespace(
    prompt_token_ids=list(range(100)), outputs=[SimpleNamespace(token_ids=[1])]
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1500, help="with one chunk, a turn")
    parser.add_argument("--streams", type=int, default=100, help=f"with {MANY} chunks, a turn")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as folder, collector() as endpoint:
        file = Path(folder) / "access.log"
        for name, parts in {
            "metrics": {},
            "metrics and log": {"log": lambda: AccessLog(file)},
            "metrics, log and traces": {
                "log": lambda: AccessLog(file),
                "tracing": lambda: Tracing(endpoint),
            },
        }.items():
            one, many = (
                statistics.median(turn(chunks, times, parts) for _ in range(args.repeats))
                - statistics.median(turn(chunks, times, None) for _ in range(args.repeats))
                for chunks, times in ((1, args.requests), (MANY, args.streams))
            )
            chunk = (many - one) / (MANY - 1)
            figures[name] = {"request_us": round(one, 1), "chunk_us": round(chunk, 2)}
            print(f"{name}: {one:.1f} us a request, {chunk:.2f} us a chunk", flush=True)
    print(json.dumps({"figures": figures, "ratios": {}}))


class Accept(BaseHTTPRequestHandler):
    """Takes whatever spans it is sent."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@contextlib.contextmanager
def collector() -> Iterator[str]:
    """A collector in a process of its own, whose time does not count; its endpoint."""
    server = HTTPServer(("127.0.0.1", 0), Accept)
    process = multiprocessing.get_context("fork").Process(target=server.serve_forever, daemon=True)
    process.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/traces"
    process.terminate()


def observed(chunks: int, **options: Any) -> ASGIApp:
    app = EngineTokens(stub(chunks, counted(generate)), abort)
    return Observe(Account(app), Figures(keys=9, models=9), **options)


def stub(chunks: int, source: Callable[..., AsyncGenerator[Any]]) -> ASGIApp:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for _ in source(chunks, request_id="1"):
            await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


async def generate(chunks: int, *, request_id: str) -> AsyncGenerator[Any]:  # noqa: ARG001
    for _ in range(chunks):
        yield OUTPUT


async def abort(_request_ids: list[str]) -> None: ...


def turn(chunks: int, times: int, parts: dict[str, Callable[[], Any]] | None) -> float:
    """CPU microseconds of this process for one request, until all is written and sent.

    Args:
        chunks: of each answer.
        times: how many requests; fewer than the log and the exporter may hold, so none is dropped.
        parts: what makes the log and the tracing; None for the stub alone.
    """
    made = {name: make() for name, make in (parts or {}).items()}
    app = stub(chunks, generate) if parts is None else observed(chunks, **made)
    started = time.process_time()
    asyncio.run(ask(app, times))
    for part in made.values():
        part.close()
    return (time.process_time() - started) / times * 1e6


async def ask(app: ASGIApp, times: int) -> None:
    async def nothing(*_: Any) -> Any: ...

    for _ in range(times):
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "client": ("127.0.0.1", 50000),
            "headers": list(HEADERS),
            "state": {},
        }
        await app(scope, nothing, nothing)


if __name__ == "__main__":
    main()
