"""Keys over real HTTP, as OpenAI's client meets them, with a fake engine behind."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import openai
import pytest
from starlette.types import Receive, Scope, Send

from serve.app import serve
from serve.gateway.chain import EngineApp
from serve.gateway.errors import send_json
from serve.gateway.exchange import exchange_of
from serve.gateway.models import ModelCard, ModelsRoute
from serve.keys.database import Database
from serve.keys.key import Limits
from serve.keys.opening import open_keys
from serve.keys.store import KeyStore
from serve.listening import address_of, listen
from serve.requests.bounds import Bounds
from serve.settings import ServeSettings

CARDS = [ModelCard("stub", 1, 512), ModelCard("support@1", 1, 512, parent="stub")]


class FakeEngine:
    dead = False

    @asynccontextmanager
    async def app(self) -> AsyncIterator[EngineApp]:
        bounds = Bounds(lambda: [card.id for card in CARDS], 512, 100)
        yield EngineApp(ModelsRoute(self._answer, lambda: CARDS), bounds)

    def shutdown(self) -> None: ...

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        exchange_of(scope).prompt_tokens = 10
        exchange_of(scope).completion_tokens = 5
        choice = {"index": 0, "text": "Paris", "finish_reason": "stop", "logprobs": None}
        body = {"id": "1", "object": "text_completion", "created": 1, "model": "stub"}
        await send_json(send, 200, {**body, "choices": [choice]})


@pytest.fixture
def settings(tmp_path: Path) -> ServeSettings:
    return ServeSettings(database=str(tmp_path / "keys.db"))


@pytest.fixture
def store(settings: ServeSettings) -> KeyStore:
    return KeyStore(Database(str(settings.database)))


def live(settings: ServeSettings, scenario: Callable[[str], Awaitable[None]]) -> None:
    """Run a scenario against a server; it gets the base URL."""

    async def both() -> None:
        ready = asyncio.Event()
        listening = listen("127.0.0.1", 0)
        with open_keys(settings) as keys:
            running = asyncio.create_task(
                serve(FakeEngine, listening, settings, on_ready=ready.set, keys=keys)
            )
            try:
                await asyncio.wait_for(ready.wait(), 20)
                await scenario(f"{address_of(listening)}/v1")
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                await running

    asyncio.run(both())


def client(url: str, key: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0)


async def complete(url: str, key: str, model: str = "stub") -> None:
    async with client(url, key) as asking:
        await asking.completions.create(model=model, prompt="The capital of France is")


async def until_refused(url: str, key: str) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            await complete(url, key)
        except openai.AuthenticationError:
            return
    pytest.fail("not refused within 20 s")


def test_openais_client_understands_every_refusal(settings: ServeSettings, store: KeyStore) -> None:
    limited = store.create("ann", limits=Limits(requests_per_minute=1)).text
    scoped = store.create("bob", models=("stub",)).text

    async def scenario(url: str) -> None:
        with pytest.raises(openai.AuthenticationError):
            await complete(url, "sk-wrong")
        with pytest.raises(openai.NotFoundError) as hidden:
            await complete(url, scoped, "support@1")
        with pytest.raises(openai.NotFoundError) as unknown:
            await complete(url, scoped, "nothing")
        assert hidden.value.code == "model_not_found"
        assert hidden.value.message == unknown.value.message
        await complete(url, scoped)
        await complete(url, limited)
        with pytest.raises(openai.RateLimitError) as refused:
            await complete(url, limited)
        assert refused.value.code == "rate_limit_exceeded"
        async with client(url, scoped) as asking:
            assert [model.id async for model in asking.models.list()] == ["stub"]

    live(settings, scenario)


def test_a_revoked_key_is_soon_refused(settings: ServeSettings, store: KeyStore) -> None:
    made = store.create("ann")

    async def scenario(url: str) -> None:
        await complete(url, made.text)
        store.revoke(made.key.id)
        await until_refused(url, made.text)

    live(settings, scenario)


def test_the_first_key_closes_a_running_server(settings: ServeSettings, store: KeyStore) -> None:
    async def scenario(url: str) -> None:
        await complete(url, "unused")
        made = store.create("ann")
        await until_refused(url, "unused")
        await complete(url, made.text)

    live(settings, scenario)
