"""The queue in front of the engine: bounded, fair, and forgetting whom it need not remember."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from serve.gateway.backpressure import Backpressure
from serve.gateway.errors import send_json
from serve.gateway.exchange import exchange_of
from serve.keys.key import Key


class Engine:
    """Answers when it is told to; notes the order and how many were there at once."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.bodies: list[bytes] = []
        self.there = self.most = 0
        self.go_on = asyncio.Semaphore(0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.order.append(scope["name"])
        self.there += 1
        self.most = max(self.most, self.there)
        try:
            self.bodies.append((await receive())["body"])
            await self.go_on.acquire()
            await send_json(send, 200, {})
        finally:
            self.there -= 1


class Client:
    """One request."""

    def __init__(
        self, app: Backpressure, name: str, path: str = "/v1/completions", *, priority: int = 0
    ) -> None:
        self.scope: Scope = {"type": "http", "path": path, "name": name, "headers": []}
        exchange_of(self.scope).key = Key(name[0], name[0])
        exchange_of(self.scope).priority = priority
        self.sent: list[Message] = []
        self._left = asyncio.Event()
        self._body: bytes | None = name.encode()
        self.task = asyncio.create_task(app(self.scope, self._receive, self._send))

    def leave(self) -> None:
        self._left.set()

    async def _receive(self) -> Message:
        body, self._body = self._body, None
        if body is not None:
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


def live(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scenario(), 20)

    asyncio.run(bounded())


def test_no_more_reach_the_engine_than_it_runs() -> None:
    async def scenario() -> None:
        engine = Engine()
        app = Backpressure(engine, 3, 100, 60)
        clients = [Client(app, f"a{n}") for n in range(10)]
        await settle()
        assert engine.there == 3
        assert app.waiting == 7
        for _ in range(10):
            engine.go_on.release()
        await asyncio.gather(*(client.task for client in clients))
        assert engine.most == 3
        assert [client.status for client in clients] == [200] * 10
        assert sorted(engine.bodies) == sorted(f"a{n}".encode() for n in range(10))
        assert app.waiting == 0
        assert exchange_of(clients[9].scope).queued > 0

    live(scenario)


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    async def scenario() -> None:
        engine = Engine()
        app = Backpressure(engine, 1, 2, 60)
        clients = [Client(app, f"a{n}") for n in range(4)]
        await settle()
        assert [client.status for client in clients] == [None, None, None, 429]
        headers = dict(clients[3].sent[0]["headers"])
        assert headers[b"retry-after"] == b"2"
        assert b"server_overloaded" in clients[3].sent[1]["body"]
        assert exchange_of(clients[3].scope).rejected == "server_overloaded"
        for _ in range(3):
            engine.go_on.release()
        await asyncio.gather(*(client.task for client in clients))

    live(scenario)


def test_keys_take_turns_however_much_one_of_them_asks() -> None:
    async def scenario() -> None:
        engine = Engine()
        app = Backpressure(engine, 1, 100, 60)
        names = ["a0", "a1", "a2", "a3", "b0", "c0", "b1"]
        clients = []
        for name in names:
            clients.append(Client(app, name))
            await settle()
        for _ in names:
            engine.go_on.release()
        await asyncio.gather(*(client.task for client in clients))
        assert engine.order == ["a0", "a1", "b0", "c0", "a2", "b1", "a3"]

    live(scenario)


def test_who_waits_too_long_is_refused_and_its_place_given_on() -> None:
    async def scenario() -> None:
        engine = Engine()
        app = Backpressure(engine, 1, 10, 0.05)
        first, second = Client(app, "a0"), Client(app, "a1")
        await second.task
        assert second.status == 503
        assert app.waiting == 0
        engine.go_on.release()
        await first.task
        third = Client(app, "a2")
        engine.go_on.release()
        await third.task
        assert engine.order == ["a0", "a2"]

    live(scenario)


def test_a_client_that_leaves_the_queue_never_reaches_the_engine() -> None:
    async def scenario() -> None:
        engine = Engine()
        app = Backpressure(engine, 1, 10, 60)
        clients = [Client(app, f"a{n}") for n in range(3)]
        await settle()
        clients[1].leave()
        await clients[1].task
        assert clients[1].status is None
        assert app.waiting == 1
        engine.go_on.release()
        engine.go_on.release()
        await asyncio.gather(*(client.task for client in clients))
        assert engine.order == ["a0", "a2"]

    live(scenario)


@pytest.mark.parametrize("when", ["waiting", "called", "answering"])
def test_a_request_that_is_ended_gives_its_place_back(when: str) -> None:
    async def scenario() -> None:
        engine = Engine()
        app = Backpressure(engine, 1, 10, 60)
        first, second = Client(app, "a0"), Client(app, "a1")
        await settle()
        if when == "waiting":
            second.task.cancel()
        else:
            engine.go_on.release()
            await first.task
            if when == "answering":
                await settle()
            second.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second.task
        engine.go_on.release()
        if when == "waiting":
            await first.task
        third = Client(app, "a2")
        engine.go_on.release()
        await asyncio.wait_for(third.task, 5)
        assert third.status == 200
        assert app.waiting == 0

    live(scenario)


def test_what_does_not_generate_is_never_held_up() -> None:
    async def scenario() -> None:
        engine = Engine()
        app = Backpressure(engine, 1, 0, 60)
        clients = [Client(app, "a0"), Client(app, "a1", "/tokenize")]
        await settle()
        assert engine.there == 2
        engine.go_on.release()
        engine.go_on.release()
        await asyncio.gather(*(client.task for client in clients))

    live(scenario)


def test_places_are_never_lost_nor_made_up() -> None:
    """Whatever ends a request, afterwards as many places are free as before."""

    async def scenario() -> None:
        import random

        draw = random.Random(1)
        engine = Engine()
        app = Backpressure(engine, 4, 8, 0.03)
        clients: list[Client] = []
        for step in range(300):
            act: Any = draw.random()
            clients.append(Client(app, f"{draw.choice('abc')}{step}"))
            if act < 0.3:
                draw.choice(clients).leave()
            elif act < 0.5:
                draw.choice(clients).task.cancel()
            elif act < 0.9:
                engine.go_on.release()
            if step % 7 == 0:
                await asyncio.sleep(0.002)
        for _ in range(300):
            engine.go_on.release()
        await asyncio.gather(*(client.task for client in clients), return_exceptions=True)
        assert engine.most == 4
        assert (app.waiting, app._free, engine.there) == (0, 4, 0)

    live(scenario)


def test_requests_of_low_priority_wait_for_all_others_and_take_no_room_in_the_queue() -> None:
    async def scenario() -> list[str]:
        engine = Engine()
        app = Backpressure(engine, max_running=1, max_queue=2, queue_seconds=10)
        clients = [Client(app, "a1")]
        await settle()
        clients += [Client(app, "b1", priority=1), Client(app, "b2", priority=1)]
        await settle()
        clients += [Client(app, "c1"), Client(app, "a2")]
        await settle()
        assert (app.interactive, app.waiting) == (3, 2)
        for _ in clients:
            engine.go_on.release()
        await asyncio.gather(*(client.task for client in clients))
        assert (app.interactive, app.waiting) == (0, 0)
        assert {client.status for client in clients} == {200}
        return engine.order

    order = asyncio.run(scenario())
    assert order[0] == "a1"
    assert order[3:] == ["b1", "b2"]


def test_a_request_of_low_priority_waits_for_longer_than_others_may() -> None:
    async def scenario() -> None:
        engine = Engine()
        app = Backpressure(engine, max_running=1, max_queue=2, queue_seconds=0.02)
        first = Client(app, "a1")
        await settle()
        low = Client(app, "b1", priority=1)
        await asyncio.sleep(0.1)
        assert low.status is None
        engine.go_on.release()
        engine.go_on.release()
        await asyncio.gather(first.task, low.task)
        assert low.status == 200

    asyncio.run(scenario())


def test_a_request_that_is_given_up_in_the_queue_leaves_no_task_behind() -> None:
    async def scenario() -> None:
        client = Client(Backpressure(Engine(), 0, 10, 10), "a1")
        await settle()
        client.task.cancel()
        await asyncio.wait([client.task])
        await settle()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())
