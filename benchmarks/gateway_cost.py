"""What the gateway costs: CPU microseconds per request, and per chunk of a streamed answer.

    python benchmarks/gateway_cost.py [--requests 3000] [--chunks 200] [--turns 5]

The chain as `serve.gateway.chain` composes it around a stub of the engine's app, called in process
(no sockets, no HTTP parser: those are the same for every server), beside the stub alone, in turns.
The stub answers a chat request, whole or in chunks like vLLM's. For an open server, a key without
limits and a key with all limits (SQLite). Each figure is the median over the turns of the
difference to the bare stub. The last line printed is one JSON object; its ratios are the figures
over the goals (150 us a request, 5 us a chunk).
"""

import argparse
import asyncio
import gc
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# This folder holds a file of that package's name.
sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).parent]

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.gateway.chain import EngineApp, Gateway
from serve.gateway.readiness import Readiness
from serve.keys.database import Database
from serve.keys.key import Limits
from serve.keys.opening import Keys, open_keys
from serve.keys.store import KeyStore
from serve.requests.bounds import Bounds
from serve.settings import ServeSettings

GOAL_REQUEST, GOAL_CHUNK = 150.0, 5.0
BODY = json.dumps(
    {
        "model": "model",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "What is the capital of France? " * 8},
        ],
        "max_tokens": 64,
        "temperature": 0.7,
    }
).encode()
STREAMED = json.dumps(json.loads(BODY) | {"stream": True}).encode()
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Paris." * 20}}],
        "usage": {"prompt_tokens": 60, "completion_tokens": 40, "total_tokens": 100},
    }
).encode()
CHUNK = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"model",'
    b'"choices":[{"index":0,"delta":{"content":" Paris"},"finish_reason":null}]}\n\n'
)


def stub(chunks: int) -> ASGIApp:
    """The engine's app: a whole answer, or so many chunks."""

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        if not chunks:
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(ANSWER)).encode()),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": ANSWER})
            return
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(chunks):
            await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


async def drive(app: ASGIApp, body: bytes, requests: int, key: str | None) -> float:
    """CPU seconds for so many requests, one after the other."""
    headers = [(b"host", b"x"), (b"content-type", b"application/json")]
    headers += [(b"content-length", str(len(body)).encode()), (b"user-agent", b"bench")]
    if key:
        headers.append((b"authorization", f"Bearer {key}".encode()))
    statuses = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def one() -> None:
        left = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            if left:
                return left.pop()
            await asyncio.Event().wait()
            raise AssertionError

        scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "raw_path": b"/v1/chat/completions",
            "query_string": b"",
            "headers": list(headers),
            "client": ("127.0.0.1", 1234),
            "state": {},
        }
        await app(scope, receive, send)

    gc.collect()
    began = time.process_time()
    for _ in range(requests):
        await one()
    seconds = time.process_time() - began
    if set(statuses) != {200}:
        raise SystemExit(f"answers: {set(statuses)}")
    return seconds


def chain(settings: ServeSettings, keys: Keys, chunks: int) -> ASGIApp:
    """All layers around the stub."""
    gateway = Gateway(settings, keys)
    readiness = Readiness()
    bounds = Bounds(lambda: ["model"], 4096, 50_000)
    readiness.ready(gateway.around(EngineApp(stub(chunks), bounds)).app)
    return gateway.outside(readiness)


async def measure(
    settings: ServeSettings, keys: Keys, key: str | None, args: Any
) -> dict[str, float]:
    """Microseconds per request and per chunk above the bare stub."""
    whole, chunked = chain(settings, keys, 0), chain(settings, keys, args.chunks)
    streams = max(1, args.requests // 20)
    for app, body in ((whole, BODY), (chunked, STREAMED)):
        await drive(app, body, 50, key)
    per_request, per_chunk = [], []
    for _ in range(args.turns):
        ours = await drive(whole, BODY, args.requests, key)
        theirs = await drive(stub(0), BODY, args.requests, None)
        request = 1e6 * (ours - theirs) / args.requests
        ours = await drive(chunked, STREAMED, streams, key)
        theirs = await drive(stub(args.chunks), STREAMED, streams, None)
        per_request.append(request)
        per_chunk.append((1e6 * (ours - theirs) / streams - request) / args.chunks)
    return {
        "request_us": round(statistics.median(per_request), 1),
        "chunk_us": round(statistics.median(per_chunk), 2),
    }


def main() -> None:
    """Open, with a key, with a limited key."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--chunks", type=int, default=200)
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        none = ServeSettings(database="none")
        figures["open"] = asyncio.run(measure(none, Keys(), None, args))
        settings = ServeSettings(database=str(Path(folder) / "keys.db"))
        database = Database(settings.database)
        store, most = KeyStore(database), 1_000_000_000
        plain = store.create("plain").text
        limited = store.create("limited", limits=Limits(most, most, 1000, most)).text
        database.close()
        with open_keys(settings) as keys:
            figures["key"] = asyncio.run(measure(settings, keys, plain, args))
            figures["limited_key"] = asyncio.run(measure(settings, keys, limited, args))
    for name, each in figures.items():
        print(f"{name}: {each}", file=sys.stderr)
    ratios = {}
    for name, each in figures.items():
        ratios[f"{name}_request_vs_goal"] = round(each["request_us"] / GOAL_REQUEST, 3)
        ratios[f"{name}_chunk_vs_goal"] = round(each["chunk_us"] / GOAL_CHUNK, 3)
    peers = {"python": platform.python_version()}
    print(json.dumps({"figures": figures, "peers": peers, "ratios": ratios}))


if __name__ == "__main__":
    main()
