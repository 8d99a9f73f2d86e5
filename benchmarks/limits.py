"""What keys and limits cost: CPU time a request, of this process, through their layers alone.

    python benchmarks/limits.py [--database postgresql://USER@HOST/EMPTY] [--requests 5000]

Requests go, one after the other and then 64 at a time, through Authenticate, AllowedModel and
Admit to an app that answers at once. Sides, in turns: no keys; a key without limits; a key with
every kind of limit whose counts this server has in its memory; the same while its counts are
shared between servers, hence in the database. The last line is JSON.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# This file's own folder would hide the package serve: it has a script of that name.
sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).parent]

from sqlalchemy import update
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.gateway.admit import Admit
from serve.gateway.authenticate import AllowedModel, Authenticate
from serve.gateway.exchange import exchange_of
from serve.keys.database import Database
from serve.keys.key import Limits
from serve.keys.opening import Keys, open_keys
from serve.keys.store import KeyStore
from serve.keys.tables import windows
from serve.requests.bounds import Bounds
from serve.settings import ServeSettings

MANY = 10**9
LIMITS = Limits(MANY, MANY, MANY, MANY)
BODY = {"model": "stub", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16}
PATH = "/v1/chat/completions"


async def answer(scope: Scope, _receive: Receive, send: Send) -> None:
    exchange = exchange_of(scope)
    exchange.prompt_tokens, exchange.completion_tokens = 10, 5
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


def layers(keys: Keys) -> ASGIApp:
    bounds = Bounds(lambda: ["stub"], 2048, 49152)
    return Authenticate(AllowedModel(Admit(answer, keys, bounds)), keys)


async def request(app: ASGIApp, key: str) -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 200

    headers = [(b"host", b"x"), (b"authorization", f"Bearer {key}".encode())]
    scope: Scope = {"type": "http", "method": "POST", "path": PATH, "headers": headers}
    exchange = exchange_of(scope)
    exchange.body, exchange.model, exchange.route = BODY, "stub", PATH
    await app(scope, receive, send)


def microseconds(app: ASGIApp, key: str, requests: int, at_once: int) -> float:
    """CPU time of one request, all threads of this process together."""

    async def run(count: int) -> None:
        for _ in range(count // at_once):
            if at_once == 1:
                await request(app, key)
            else:
                await asyncio.gather(*(request(app, key) for _ in range(at_once)))

    asyncio.run(run(max(at_once, requests // 20)))
    began = time.process_time()
    asyncio.run(run(requests))
    return (time.process_time() - began) / requests * 1e6


@contextmanager
def shared(database: Database) -> Iterator[None]:
    """While the block lasts, servers count in the database, as where several want a key."""

    def until(moment: float) -> None:
        with database.writing() as connection:
            connection.execute(update(windows).values(shared_until=moment, owner=None))

    until(time.time() + 3600)
    try:
        yield
    finally:
        until(0)


def measure(database_name: str, requests: int, rounds: int) -> dict[str, float]:
    database = Database(database_name)
    store = KeyStore(database)
    plain, alone, together = (
        store.create("bench", limits=limits).text for limits in (None, LIMITS, LIMITS)
    )
    found: dict[str, list[float]] = {}
    with open_keys(ServeSettings(database=database_name)) as keys:
        app, open_app = layers(keys), layers(Keys())
        for _ in range(rounds):
            for at_once in (1, 64):
                sides = {"no keys": (open_app, ""), "key": (app, plain), "limits": (app, alone)}
                for name, (of, key) in sides.items():
                    cost = microseconds(of, key, requests, at_once)
                    found.setdefault(f"{name}, {at_once} at a time", []).append(cost)
                time.sleep(6)  # the row is given up
                with shared(database):
                    cost = microseconds(app, together, requests // 10, at_once)
                found.setdefault(f"shared limits, {at_once} at a time", []).append(cost)
    database.close()
    return {name: round(statistics.median(costs), 1) for name, costs in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", help="an empty PostgreSQL database (default: SQLite)")
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        name = given.database or str(Path(folder) / "keys.db")
        figures = measure(name, given.requests, given.rounds)
    for side, cost in figures.items():
        print(f"{cost:8.1f} microseconds of CPU a request: {side}")
    print(json.dumps({"benchmark": "limits", "microseconds": figures}))


if __name__ == "__main__":
    main()
