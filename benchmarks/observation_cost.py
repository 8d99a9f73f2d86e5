"""What counting, logging and tracing cost: CPU time a request and a streamed chunk, without HTTP.

Observe, Account and EngineTokens stand around a stub that streams, once with one chunk and once
with 1,001; the same stub alone is taken off. The least of ``--repeats`` turns counts, the threads
that write the log and send the spans included. Goals for the whole gateway: 150 and 5 microseconds.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
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
    parser.add_argument("--requests", type=int, default=3000, help="with one chunk, a turn")
    parser.add_argument("--streams", type=int, default=20, help=f"with {MANY} chunks, a turn")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        log = AccessLog(Path(folder) / "access.log")
        # Nothing listens there: exporting fails, as it must not matter that it does.
        tracing = Tracing("http://127.0.0.1:9/v1/traces")
        for name, options in {
            "metrics": {},
            "metrics and log": {"log": log},
            "metrics, log and traces": {"log": log, "tracing": tracing},
        }.items():
            one, many = (
                least(observed(chunks, **options), times, args.repeats)
                - least(stub(chunks, generate), times, args.repeats)
                for chunks, times in ((1, args.requests), (MANY, args.streams))
            )
            chunk = (many - one) / (MANY - 1)
            figures[name] = {"request_us": round(one, 1), "chunk_us": round(chunk, 2)}
            print(f"{name}: {one:.1f} us a request, {chunk:.2f} us a chunk", flush=True)
        log.close()
        tracing.close()
    print(json.dumps({"figures": figures, "ratios": {}}))


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


def least(app: ASGIApp, times: int, repeats: int) -> float:
    """CPU microseconds of this process for one request, in the best turn."""
    return min(asyncio.run(turn(app, times)) for _ in range(repeats))


async def turn(app: ASGIApp, times: int) -> float:
    async def nothing(*_: Any) -> None: ...

    started = time.process_time()
    for _ in range(times):
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "client": ("127.0.0.1", 50000),
            "headers": list(HEADERS),
            "state": {},
        }
        await app(scope, nothing, nothing)  # type: ignore[arg-type]
    return (time.process_time() - started) / times * 1e6


if __name__ == "__main__":
    main()
