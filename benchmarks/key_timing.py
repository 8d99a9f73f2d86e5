"""Whether the time of a refusal tells anything about a key: medians of `Authenticate` in process.

    python benchmarks/key_timing.py [--requests 20000] [--turns 5]

Kinds of keys are asked in turn, each request timed alone, so that what else the machine does falls
on all of them alike. The last line printed is one JSON object: nanoseconds of each kind, and the
ratio of each refusal to that of an unknown id.
"""

import argparse
import asyncio
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

# This folder holds a file of that package's name.
sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).parent]

from starlette.types import Message, Receive, Scope, Send

from serve.gateway.authenticate import Authenticate
from serve.gateway.errors import send_json
from serve.keys.database import Database
from serve.keys.opening import open_keys
from serve.keys.secret import new_id, new_secret, parsed, written
from serve.keys.store import KeyStore
from serve.settings import ServeSettings


def presented(key: str) -> dict[str, str]:
    """What clients send, by kind, given a key that holds."""
    key_id, secret = parsed(key)
    last = "a" if secret[-1] != "a" else "b"
    return {
        "unknown_id": written(new_id(), new_secret()),
        "wrong_secret": written(key_id, new_secret()),
        "wrong_last_character": written(key_id, secret[:-1] + last),
        "right": key,
    }


async def answer(_scope: Scope, _receive: Receive, send: Send) -> None:
    """The app behind."""
    await send_json(send, 200, {})


async def nanoseconds(layer: Authenticate, key: str) -> tuple[int, int]:
    """Status and time of one request."""
    statuses = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    headers = [(b"host", b"x"), (b"authorization", f"Bearer {key}".encode())]
    scope: Scope = {"type": "http", "method": "GET", "path": "/v1/models", "headers": headers}
    began = time.perf_counter_ns()
    await layer(scope, receive, send)
    return statuses[0], time.perf_counter_ns() - began


async def measure(layer: Authenticate, keys: dict[str, str], requests: int) -> dict[str, float]:
    """The median time of each kind."""
    times: dict[str, list[int]] = {kind: [] for kind in keys}
    for number in range(requests + 200):
        for kind, key in keys.items():
            status, took = await nanoseconds(layer, key)
            if status != (200 if kind == "right" else 401):
                raise SystemExit(f"{kind}: answered {status}")
            if number >= 200:
                times[kind].append(took)
    return {kind: statistics.median(each) for kind, each in times.items()}


def main() -> None:
    """Print the medians over all turns."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = ServeSettings(database=str(Path(folder) / "keys.db"))
        database = Database(settings.database)
        key = KeyStore(database).create("timed").text
        database.close()
        with open_keys(settings) as keys:
            layer, kinds = Authenticate(answer, keys), presented(key)
            turns = [asyncio.run(measure(layer, kinds, args.requests)) for _ in range(args.turns)]
    figures = {kind: statistics.median(turn[kind] for turn in turns) for kind in kinds}
    ratios = {
        f"{kind}_vs_unknown_id": round(figures[kind] / figures["unknown_id"], 3)
        for kind in ("wrong_secret", "wrong_last_character")
    }
    peers = {"python": platform.python_version()}
    print(json.dumps({"figures_ns": figures, "peers": peers, "ratios": ratios}))


if __name__ == "__main__":
    main()
