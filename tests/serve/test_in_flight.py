"""Requests under way, and how each way of ending them looks to their clients."""

import asyncio
import json

from gateway_calls import call
from starlette.types import Message, Receive, Scope, Send

from serve.gateway.exchange import exchange_of
from serve.gateway.in_flight import ENGINE_DIED, SHUTDOWN, InFlight


def scope() -> Scope:
    return {"type": "http", "path": "/v1/completions", "headers": []}


async def receive() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


def stream(events: int) -> object:
    """An app that sends some events and then never ends."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        if events:
            headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(events):
            await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
        await asyncio.Event().wait()

    return app


def ended(events: int, *, seconds: float | None = None) -> tuple[list[Message], str | None]:
    """What a client gets of a request that is ended by its time, or by the engine's death."""

    async def both() -> tuple[list[Message], str | None]:
        sent: list[Message] = []
        asked = scope()

        async def send(message: Message) -> None:
            sent.append(message)

        app = InFlight(stream(events), seconds)  # type: ignore[arg-type]
        request = asyncio.create_task(app(asked, receive, send))
        await asyncio.sleep(0.02)
        if seconds is None:
            app.cut_all(ENGINE_DIED)
        await asyncio.wait_for(request, 5)
        await asyncio.wait_for(app.wait_until_none(), 5)
        return sent, exchange_of(asked).rejected

    return asyncio.run(both())


def test_a_request_over_its_time_is_answered_504() -> None:
    sent, rejected = ended(0, seconds=0.05)
    assert sent[0]["status"] == 504
    assert json.loads(sent[1]["body"])["error"]["code"] == rejected == "request_timeout"


def test_a_stream_over_its_time_ends_with_an_error_event() -> None:
    sent, _ = ended(2, seconds=0.05)
    last = sent[-1]
    assert not last.get("more_body")
    assert json.loads(last["body"].removeprefix(b"data: "))["error"]["code"] == "request_timeout"


def test_clients_learn_that_the_engine_died() -> None:
    sent, rejected = ended(2)
    error = json.loads(sent[-1]["body"].removeprefix(b"data: "))["error"]
    assert (error["code"], error["type"], rejected) == (
        "engine_died",
        "server_error",
        "engine_died",
    )
    sent, _ = ended(0)
    assert sent[0]["status"] == 503


def test_a_request_that_comes_after_the_others_were_cut_is_told_the_same() -> None:
    async def late() -> list[Message]:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        app = InFlight(stream(0))  # type: ignore[arg-type]
        app.cut_all(SHUTDOWN)
        asked = scope()
        await asyncio.wait_for(app(asked, receive, send), 5)
        assert exchange_of(asked).rejected == "server_shutdown"
        return sent

    sent = asyncio.run(late())
    assert sent[0]["status"] == 503
    assert json.loads(sent[1]["body"])["error"]["code"] == "server_shutdown"


def test_on_a_path_without_a_time_a_request_takes_as_long_as_it_does() -> None:
    async def slow(_scope: Scope, _receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.03)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    app = InFlight(slow, 0.01, untimed=("/v1/files",))
    for path, status in (("/v1/files/file-1/content", 200), ("/v1/completions", 504)):
        assert call(app, path)[1][0]["status"] == status


def test_a_line_of_a_batch_waits_for_others_as_long_as_it_takes() -> None:
    async def both() -> list[Message]:
        sent: list[Message] = []

        async def slow(_scope: Scope, _receive: Receive, send: Send) -> None:
            await asyncio.sleep(0.03)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"done"})

        async def send(message: Message) -> None:
            sent.append(message)

        low = scope()
        exchange_of(low).priority = 1
        await InFlight(slow, 0.01)(low, receive, send)
        return sent

    assert asyncio.run(both())[0]["status"] == 200


def test_a_request_within_its_time_is_let_be() -> None:
    async def both() -> None:
        async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"done"})

        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        in_flight = InFlight(app, 0.05)
        await in_flight(scope(), receive, send)
        await asyncio.sleep(0.1)
        assert [message["type"] for message in sent] == [
            "http.response.start",
            "http.response.body",
        ]

    asyncio.run(both())


def test_whoever_gives_a_request_up_ends_with_it_and_gets_no_answer() -> None:
    async def scenario() -> list[Message]:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        app = InFlight(stream(0))  # type: ignore[arg-type]
        request = asyncio.create_task(app(scope(), receive, send))
        await asyncio.sleep(0.02)
        request.cancel()
        await asyncio.wait([request], timeout=5)
        assert request.cancelled()
        await asyncio.wait_for(app.wait_until_none(), 5)
        return sent

    assert asyncio.run(scenario()) == []
