"""Tokens and their times, noted while an answer passes."""

import asyncio
from collections.abc import AsyncGenerator
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import pytest
from gateway_calls import DONE, TEXT, call, streaming
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.gateway.account import Account
from serve.gateway.engine_tokens import EngineTokens, counted
from serve.gateway.errors import send_json
from serve.gateway.exchange import exchange_of


def test_the_first_and_the_last_event_with_text_are_timed() -> None:
    went_out: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def timed(message: Message) -> None:
            went_out.append(perf_counter())
            await send(message)

        await streaming(b": ping\n\n", TEXT, TEXT, TEXT, DONE)(scope, receive, timed)

    exchange, sent = call(Account(app))
    assert exchange.first_token is not None
    assert exchange.last_token is not None
    # After the headers and the ping; before DONE.
    assert went_out[2] <= exchange.first_token <= went_out[3]
    assert went_out[4] <= exchange.last_token <= went_out[5]
    assert [message.get("body") for message in sent[1:6]] == [b": ping\n\n", TEXT, TEXT, TEXT, DONE]


def test_of_named_events_those_with_text_are_timed() -> None:
    made = b'event: response.created\ndata: {"type":"response.created"}\n\n'
    text = b'event: response.output_text.delta\ndata: {"delta":"a"}\n\n'
    exchange, _ = call(Account(streaming(made, text, text, made)))
    assert exchange.completion_tokens == 2


def test_a_stream_whose_engine_tells_nothing_counts_its_events() -> None:
    exchange, _ = call(Account(streaming(TEXT, TEXT, DONE, finished=False)))
    assert exchange.completion_tokens == 2


def test_an_answer_in_one_piece_has_no_token_times() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, 200, {"usage": {}})

    exchange, _ = call(Account(app))
    assert (exchange.first_token, exchange.last_token) == (None, None)
    assert exchange.completion_tokens == 0


class FakeEngine:
    """Generates as vLLM's client does: the prompt first, then outputs with token ids."""

    def __init__(self, outputs: list[list[list[int]]], prompt: list[int]) -> None:
        self._outputs, self._prompt = outputs, prompt
        self.closed = False
        self.aborted: list[str] = []

    async def abort(self, request_ids: list[str]) -> None:
        self.aborted += request_ids

    async def generate(self, prompt: Any, *, request_id: str) -> AsyncGenerator[Any]:
        try:
            for step in self._outputs:
                await asyncio.sleep(0)
                outputs = [SimpleNamespace(token_ids=ids) for ids in step]
                yield SimpleNamespace(prompt_token_ids=self._prompt, outputs=outputs)
        finally:
            self.closed = True


async def no_abort(_request_ids: list[str]) -> None:
    raise AssertionError("nothing is to be ended")


def answering(
    engine: FakeEngine, *, prompt: Any = "text", usage: Any = None, leave_after: int = 99
) -> ASGIApp:
    generate = counted(engine.generate)

    async def run(send: Send) -> None:
        sent = 0
        async for _ in generate(prompt, request_id="1"):
            await send({"type": "http.response.body", "body": TEXT, "more_body": True})
            sent += 1
            if sent == leave_after:
                raise asyncio.CancelledError

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["state"]
        state["request_metadata"] = SimpleNamespace(final_usage_info=usage)
        # As vLLM does to be able to cancel: a task of its own.
        await asyncio.create_task(run(send))

    return EngineTokens(app, engine.abort)


def test_the_engines_tokens_are_counted_for_the_request_that_asked() -> None:
    engine = FakeEngine([[[1, 2], [5]], [[3], [6]]], prompt=[7, 8, 9])
    exchange, _ = call(answering(engine))
    assert (exchange.prompt_tokens, exchange.completion_tokens) == (3, 5)


def test_a_request_that_is_left_has_its_prompt_and_the_tokens_so_far() -> None:
    engine = FakeEngine([[[1]], [[2]], [[3]]], prompt=[7, 8, 9])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await answering(engine, leave_after=2)(scope, receive, send)
        except asyncio.CancelledError:
            await asyncio.sleep(0)

    exchange, _ = call(app)
    assert (exchange.prompt_tokens, exchange.completion_tokens) == (3, 2)
    assert engine.closed  # vLLM aborts the generation on this


def test_closing_what_counts_closes_the_generation_at_once() -> None:
    engine = FakeEngine([[[1]], [[2]]], prompt=[7])
    kept: list[AsyncGenerator[Any]] = []  # else collecting it as garbage would close it too

    def generate(prompt: Any, *, request_id: str) -> AsyncGenerator[Any]:
        kept.append(engine.generate(prompt, request_id=request_id))
        return kept[0]

    async def leave() -> None:
        outputs = counted(generate)("text", request_id="1")
        await anext(outputs)
        await outputs.aclose()
        assert engine.closed

    asyncio.run(leave())


class Unstreamed:
    """Generates for ever, and hands out what it has made once, when it is told to end.

    Its app is as vLLM's: when it hears that its client left, or is cancelled, it drops the
    handler without waiting for it.
    """

    def __init__(self) -> None:
        self._ends: dict[str, asyncio.Event] = {}
        self.begun = asyncio.Event()

    async def generate(
        self, prompt: Any, params: Any, request_id: str, **_: Any
    ) -> AsyncGenerator[Any]:
        self._ends[request_id] = asyncio.Event()
        self.begun.set()
        await self._ends[request_id].wait()
        outputs = [SimpleNamespace(token_ids=[1, 2, 3])]
        yield SimpleNamespace(prompt_token_ids=[7, 8], outputs=outputs)

    async def abort(self, request_ids: list[str]) -> None:
        for request_id in request_ids:
            self._ends[request_id].set()

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def handle() -> None:
            async for _ in counted(self.generate)("text", None, "a client's own"):
                await send_json(send, 500, {})

        async def left() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        tasks = [asyncio.create_task(handle()), asyncio.create_task(left())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()


@pytest.mark.parametrize("how", ["its client leaves", "it is cut"])
def test_what_was_made_of_an_answer_that_is_not_streamed_counts_when(how: str) -> None:
    async def scenario() -> None:
        engine, scope = Unstreamed(), {"type": "http", "path": "/v1/completions", "headers": []}
        gone = asyncio.Event()

        async def receive() -> Message:
            await gone.wait()
            return {"type": "http.disconnect"}

        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        app = EngineTokens(engine.app, engine.abort)
        request = asyncio.create_task(app(scope, receive, send))
        await engine.begun.wait()
        if how == "it is cut":
            request.cancel()
        else:
            gone.set()
        await asyncio.wait([request], timeout=5)
        exchange = exchange_of(scope)
        assert (exchange.prompt_tokens, exchange.completion_tokens) == (2, 3)
        assert not sent

    asyncio.run(scenario())


def test_clients_that_name_their_requests_alike_end_only_their_own() -> None:
    engine = FakeEngine([[[1]]], prompt=[7])
    ids: set[str] = set()

    def generate(prompt: Any, *, request_id: str) -> AsyncGenerator[Any]:
        ids.add(request_id)
        return engine.generate(prompt, request_id=request_id)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async for _ in counted(generate)("text", request_id="alike"):
            pass

    for _ in range(2):
        call(EngineTokens(app, no_abort))
    assert len(ids) == 2
    assert all(name.startswith("alike-") for name in ids)


def test_a_prompt_counts_before_the_first_output() -> None:
    exchange, _ = call(answering(FakeEngine([], []), prompt={"prompt_token_ids": [1, 2]}))
    assert (exchange.prompt_tokens, exchange.completion_tokens) == (2, 0)


def test_a_rendered_prompt_is_not_counted_twice() -> None:
    engine = FakeEngine([[[1]], [[2]]], prompt=[7, 8])
    exchange, _ = call(answering(engine, prompt={"prompt_token_ids": [7, 8]}))
    assert (exchange.prompt_tokens, exchange.completion_tokens) == (2, 2)


def test_vllms_own_usage_has_the_last_word() -> None:
    usage = SimpleNamespace(prompt_tokens=3, completion_tokens=1)
    exchange, _ = call(answering(FakeEngine([[[1]], [[2]]], [7, 8, 9, 9]), usage=usage))
    assert (exchange.prompt_tokens, exchange.completion_tokens) == (3, 1)


def test_requests_at_once_are_counted_apart() -> None:
    one = answering(FakeEngine([[[1]]] * 3, [1]))
    two = answering(FakeEngine([[[1, 1]]] * 5, [1, 2]))
    scopes: list[Scope] = [{"type": "http", "path": "/"} for _ in range(2)]

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(_message: Message) -> None:
        await asyncio.sleep(0)

    async def both() -> None:
        await asyncio.gather(
            *(app(scope, receive, send) for app, scope in zip((one, two), scopes, strict=True))
        )

    asyncio.run(both())
    counts = [(exchange_of(s).prompt_tokens, exchange_of(s).completion_tokens) for s in scopes]
    assert counts == [(1, 3), (2, 10)]


def test_an_embedding_counts_its_prompt_alone() -> None:
    async def encode(prompt: Any, *, request_id: str) -> AsyncGenerator[Any]:
        yield SimpleNamespace(prompt_token_ids=[1, 2, 3], outputs=SimpleNamespace(data=[0.1]))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async for _ in counted(encode)("text", request_id="1"):
            pass

    exchange, _ = call(EngineTokens(app, no_abort))
    assert (exchange.prompt_tokens, exchange.completion_tokens) == (3, 0)


@pytest.mark.parametrize(("gateways", "clients"), [(0, 0), (0, -5), (1, 0)])
def test_the_engine_is_told_the_gateways_priority_whatever_the_client_wrote(
    gateways: int, clients: int
) -> None:
    told = []

    async def generate(prompt: Any, *, request_id: str, priority: int) -> AsyncGenerator[Any]:
        told.append(priority)
        yield SimpleNamespace(prompt_token_ids=[1], outputs=[])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async for _ in counted(generate)("text", request_id="1", priority=clients):
            pass

    async def asking(scope: Scope, receive: Receive, send: Send) -> None:
        exchange_of(scope).priority = gateways
        await EngineTokens(app, no_abort)(scope, receive, send)

    call(asking)
    assert told == [gateways]
