"""What a client with a limited key sees: 429, the headers, and what it is charged."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import insert
from sqlalchemy.exc import OperationalError
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.gateway.admit import Admit
from serve.gateway.authenticate import AllowedModel, Authenticate
from serve.gateway.backpressure import send_overloaded
from serve.gateway.errors import send_json
from serve.gateway.exchange import exchange_of
from serve.gateway.usage_route import UsageRoute
from serve.keys.database import Database
from serve.keys.key import Limits
from serve.keys.opening import Keys, open_keys
from serve.keys.secret import parsed
from serve.keys.store import KeyStore
from serve.keys.tables import usage as usage_table
from serve.requests.bounds import Bounds
from serve.settings import ServeSettings

BOUNDS = Bounds(lambda: ["base", "support@1"], 2048, 49152)
CHAT = "/v1/chat/completions"


class Engine:
    """Answers, or fails, after it has counted tokens."""

    def __init__(self, prompt: int = 10, completion: int = 5, status: int = 200) -> None:
        self.prompt, self.completion, self.status = prompt, completion, status
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.calls = self.tokenized = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/tokenize":
            self.tokenized += 1
            assert "messages" in json.loads((await receive())["body"])
            await send_json(send, 200, {"count": self.prompt})
            return
        self.calls += 1
        exchange = exchange_of(scope)
        exchange.prompt_tokens = self.prompt
        exchange.completion_tokens = self.completion
        await self.may_end.wait()
        await send_json(send, self.status, {})


def chain(keys: Keys, engine: ASGIApp) -> ASGIApp:
    guarded = Authenticate(AllowedModel(Admit(UsageRoute(engine, keys), keys, BOUNDS)), keys)

    async def body_checked(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        if scope["method"] == "POST":
            exchange.body = json.loads((await receive())["body"])
            exchange.model = exchange.body["model"]
        await guarded(scope, receive, send)

    return body_checked


@asynccontextmanager
async def replicas(
    database_name: str, count: int, engine: ASGIApp
) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Clients of so many servers that share a database."""
    settings = ServeSettings(database=database_name)
    with ExitStack() as open_:
        keys = [open_.enter_context(open_keys(settings)) for _ in range(count)]
        clients = [
            httpx.AsyncClient(transport=httpx.ASGITransport(chain(of, engine)), base_url="http://t")
            for of in keys
        ]
        yield clients
        for client in clients:
            await client.aclose()


async def post(
    client: httpx.AsyncClient, key: str, path: str = CHAT, **body: Any
) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"}
    content = {"model": "base", "messages": [{"role": "user", "content": "Hi"}], **body}
    return await client.post(path, json=content, headers=headers)


async def usage(client: httpx.AsyncClient, key: str, query: str = "") -> Mapping[str, Any]:
    answer = await client.get(f"/v1/usage{query}", headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 200, answer.text
    body: Mapping[str, Any] = answer.json()
    return body


@pytest.fixture
def make_key(database: Database) -> Callable[..., str]:
    def make(limits: Limits | None = None, **more: Any) -> str:
        return KeyStore(database).create("ann", limits=limits, **more).text

    return make


def test_two_replicas_admit_exactly_60_of_200_parallel_requests(
    database_name: str, make_key: Callable[..., str]
) -> None:
    key = make_key(Limits(requests_per_minute=60))

    async def scenario() -> None:
        engine = Engine()
        async with replicas(database_name, 2, engine) as clients:
            answers = await asyncio.gather(*(post(clients[n % 2], key) for n in range(200)))
        assert sorted(answer.status_code for answer in answers) == [200] * 60 + [429] * 140
        assert engine.calls == 60

    asyncio.run(scenario())


def test_a_refusal_has_openais_shape_and_headers(
    database_name: str, make_key: Callable[..., str]
) -> None:
    key = make_key(Limits(requests_per_minute=1, tokens_per_minute=5000))

    async def scenario() -> None:
        async with replicas(database_name, 1, Engine()) as (client,):
            first, second = await post(client, key), await post(client, key)
        assert first.status_code == 200
        assert first.headers["x-ratelimit-limit-requests"] == "1"
        assert first.headers["x-ratelimit-remaining-requests"] == "0"
        assert first.headers["x-ratelimit-reset-requests"] in ("1m0s", "1m1s")
        assert first.headers["x-ratelimit-limit-tokens"] == "5000"
        assert second.status_code == 429
        error = second.json()["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert "1 requests per minute" in error["message"]
        assert 55 <= int(second.headers["retry-after"]) <= 61
        # The first request's 15 tokens.
        assert second.headers["x-ratelimit-remaining-tokens"] == "4985"

    asyncio.run(scenario())


def test_tokens_are_put_aside_while_the_answer_is_written_and_charged_when_it_is(
    database_name: str, make_key: Callable[..., str]
) -> None:
    key = make_key(Limits(tokens_per_minute=100))

    async def scenario() -> None:
        engine = Engine(prompt=10, completion=30)
        async with replicas(database_name, 1, engine) as (client,):
            engine.may_end.clear()
            first = asyncio.create_task(post(client, key, max_tokens=80))
            while not engine.calls:
                await asyncio.sleep(0.01)
            assert (await post(client, key, max_tokens=80)).status_code == 429
            engine.may_end.set()
            assert (await first).status_code == 200
            # 40 of the 100 are used.
            assert (await post(client, key, max_tokens=80)).status_code == 429
            assert (await post(client, key, max_tokens=50)).status_code == 200
            assert (await post(client, key, max_tokens=30)).status_code == 429

    asyncio.run(scenario())


def test_more_tokens_than_a_minute_has_are_refused_for_good(
    database_name: str, make_key: Callable[..., str]
) -> None:
    key = make_key(Limits(tokens_per_minute=100))

    async def scenario() -> None:
        async with replicas(database_name, 1, Engine()) as (client,):
            answer = await post(client, key, max_tokens=101)
        assert answer.status_code == 429
        assert "max_tokens" in answer.json()["error"]["message"]
        assert "retry-after" not in answer.headers
        assert answer.headers["x-should-retry"] == "false"

    asyncio.run(scenario())


def test_near_the_limit_the_prompts_real_length_decides(
    database_name: str, make_key: Callable[..., str]
) -> None:
    limits = Limits(tokens_per_minute=100)
    one, other = make_key(limits), make_key(limits)

    async def scenario() -> None:
        # 400 characters may be 50 tokens or hundreds.
        messages = [{"role": "user", "content": "x" * 400}]
        for key, prompt, status in ((one, 60, 200), (other, 61, 429)):
            engine = Engine(prompt=prompt, completion=40)
            async with replicas(database_name, 1, engine) as (client,):
                answer = await post(client, key, messages=messages, max_tokens=40)
                assert (answer.status_code, engine.tokenized) == (status, 1)
                left = answer.headers["x-ratelimit-remaining-tokens"]
                assert left == ("0" if status == 200 else "100")
        assert "101 tokens" in answer.json()["error"]["message"]

    asyncio.run(scenario())


def test_a_prompt_that_can_never_fit_is_told_so_with_the_minutes_last_request(
    database_name: str, make_key: Callable[..., str]
) -> None:
    key = make_key(Limits(requests_per_minute=1, tokens_per_minute=100))

    async def scenario() -> None:
        async with replicas(database_name, 1, Engine(prompt=61)) as (client,):
            messages = [{"role": "user", "content": "x" * 400}]
            answer = await post(client, key, messages=messages, max_tokens=40)
        assert "may use 101 tokens" in answer.json()["error"]["message"]

    asyncio.run(scenario())


def test_what_the_gateway_refuses_behind_the_limits_counts_for_nothing(
    database_name: str, make_key: Callable[..., str]
) -> None:
    key = make_key(Limits(requests_per_minute=1, tokens_per_minute=10_000))
    full = True

    async def engine(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        if full:
            await send_overloaded(exchange, send, 429, "the queue is full.")
        else:
            exchange.prompt_tokens = 1
            await send_json(send, 200, {})

    async def scenario() -> None:
        nonlocal full
        async with replicas(database_name, 1, engine) as (client,):
            for _ in range(3):
                answer = await post(client, key)
                assert answer.json()["error"]["code"] == "server_overloaded"
            assert (await usage(client, key))["data"] == []
            full = False
            assert [(await post(client, key)).status_code for _ in range(2)] == [200, 429]

    asyncio.run(scenario())


def test_far_from_the_limit_nothing_is_tokenized_beforehand(
    database_name: str, make_key: Callable[..., str]
) -> None:
    key = make_key(Limits(tokens_per_minute=100_000, tokens_per_month=1_000_000))

    async def scenario() -> None:
        engine = Engine()
        async with replicas(database_name, 1, engine) as (client,):
            for _ in range(5):
                assert (await post(client, key, max_tokens=40)).status_code == 200
        assert (engine.calls, engine.tokenized) == (5, 0)

    asyncio.run(scenario())


def test_a_month_that_requests_under_way_hold_is_to_be_asked_again(
    database_name: str, make_key: Callable[..., str]
) -> None:
    key = make_key(Limits(tokens_per_month=800))

    async def scenario() -> None:
        engine = Engine()
        engine.may_end.clear()
        async with replicas(database_name, 1, engine) as (client,):
            first = asyncio.create_task(post(client, key, max_tokens=500))
            while not engine.calls:
                await asyncio.sleep(0.001)
            answer = await post(client, key, max_tokens=500)
            engine.may_end.set()
            assert (await first).status_code == 200
            assert (await post(client, key, max_tokens=500)).status_code == 200
        assert answer.status_code == 429
        assert answer.json()["error"]["code"] == "rate_limit_exceeded"
        assert answer.headers["retry-after"] == "1"
        assert "x-should-retry" not in answer.headers

    asyncio.run(scenario())


def test_a_used_up_month_is_insufficient_quota(
    database_name: str, make_key: Callable[..., str]
) -> None:
    key = make_key(Limits(tokens_per_month=20))

    async def scenario() -> None:
        async with replicas(database_name, 1, Engine(10, 10)) as (client,):
            assert (await post(client, key)).status_code == 200
            answer = await post(client, key)
        assert answer.status_code == 429
        assert answer.json()["error"]["code"] == "insufficient_quota"
        assert answer.headers["x-should-retry"] == "false"

    asyncio.run(scenario())


def test_a_client_that_leaves_is_charged_and_holds_nothing(
    database_name: str, make_key: Callable[..., str]
) -> None:
    key = make_key(Limits(concurrent_requests=1, tokens_per_minute=100))

    async def scenario() -> None:
        engine = Engine(prompt=30, completion=20)
        async with replicas(database_name, 1, engine) as (client,):
            engine.may_end.clear()
            asked = asyncio.create_task(post(client, key, max_tokens=20))
            while not engine.calls:
                await asyncio.sleep(0.01)
            assert (await post(client, key, max_tokens=1)).status_code == 429
            asked.cancel()
            await asyncio.wait([asked])
            engine.may_end.set()
            answer = await post(client, key, max_tokens=1)
            assert answer.status_code == 200
            assert (await usage(client, key))["data"][0]["prompt_tokens"] == 60

    asyncio.run(scenario())


def test_reading_is_free(database_name: str, make_key: Callable[..., str]) -> None:
    key = make_key(Limits(requests_per_minute=1))

    async def scenario() -> None:
        async with replicas(database_name, 1, Engine()) as (client,):
            for _ in range(3):
                headers = {"authorization": f"Bearer {key}"}
                assert (await client.get("/v1/models", headers=headers)).status_code == 200
            assert (await post(client, key)).status_code == 200

    asyncio.run(scenario())


def test_usage_is_recorded_by_key_and_model_and_adds_up_over_replicas(
    database_name: str, make_key: Callable[..., str]
) -> None:
    admin, other = make_key(admin=True), make_key(Limits(requests_per_minute=100))

    async def scenario() -> None:
        async with replicas(database_name, 2, Engine(10, 5)) as clients:
            for client in clients:
                for model in ("base", "support@1"):
                    await asyncio.gather(*(post(client, other, model=model) for _ in range(4)))
                await post(client, admin)
            for client in clients:  # each writes what it counted
                await usage(client, admin)
            mine = (await usage(clients[0], other))["data"]
            assert [(row["model"], row["requests"]) for row in mine] == [
                ("base", 8),
                ("support@1", 8),
            ]
            assert mine[0]["prompt_tokens"] == 80
            assert mine[0]["completion_tokens"] == 40
            assert mine[0]["total_tokens"] == 120
            everyones = (await usage(clients[0], admin))["data"]
            assert len(everyones) == 3
            day = mine[0]["day"]
            assert len((await usage(clients[0], admin, f"?since={day}&until={day}"))["data"]) == 3
            assert (await usage(clients[0], admin, "?until=2001-01-01"))["data"] == []
            name = mine[0]["key_id"]
            assert len((await usage(clients[0], admin, f"?key={name}"))["data"]) == 2

    asyncio.run(scenario())


def test_usage_is_told_up_to_the_first_day_there_is(
    database_name: str, make_key: Callable[..., str]
) -> None:
    key = make_key()

    async def scenario() -> None:
        async with replicas(database_name, 1, Engine()) as (client,):
            assert (await usage(client, key, "?until=0001-01-01"))["data"] == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?since=today", 400),
        ("?key=%00", 400),
        ("?model=base", 400),
        ("?key=someone", 403),
    ],
)
def test_a_wrong_question_about_usage_is_refused(
    database_name: str, make_key: Callable[..., str], query: str, status: int
) -> None:
    key = make_key()

    async def scenario() -> None:
        async with replicas(database_name, 1, Engine()) as (client,):
            headers = {"authorization": f"Bearer {key}"}
            answer = await client.get(f"/v1/usage{query}", headers=headers)
        assert answer.status_code == status
        assert answer.json()["error"]["param"]

    asyncio.run(scenario())


def test_usage_is_of_the_last_month_unless_asked_otherwise_and_of_no_more_rows_than_fit(
    database: Database,
    database_name: str,
    make_key: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = make_key()
    today = datetime.now(UTC).date()
    rows = [(today, "base"), (today - timedelta(30), "base"), (today - timedelta(31), "old")]
    with database.writing() as connection:
        connection.execute(
            insert(usage_table),
            [
                {"key_id": parsed(key)[0], "model": model, "day": day, "requests": 1}
                | {"prompt_tokens": 1, "completion_tokens": 1}
                for day, model in rows
            ],
        )

    async def scenario() -> None:
        async with replicas(database_name, 1, Engine()) as (client,):
            told = (await usage(client, key))["data"]
            assert [row["day"] for row in told] == [str(rows[1][0]), str(today)]
            assert len((await usage(client, key, "?since=2000-01-01"))["data"]) == 3
            until = (await usage(client, key, f"?until={rows[2][0]}"))["data"]
            assert [row["model"] for row in until] == ["old"]
            monkeypatch.setattr("serve.gateway.usage_route.MOST_ROWS", 2)
            headers = {"authorization": f"Bearer {key}"}
            refused = await client.get("/v1/usage?since=2000-01-01", headers=headers)
            assert refused.status_code == 400
            assert "ask for fewer days" in refused.json()["error"]["message"]

    asyncio.run(scenario())


def test_without_the_database_a_limited_key_is_503_and_others_go_on(
    database_name: str, make_key: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    limited, unlimited = make_key(Limits(requests_per_minute=10)), make_key()

    def away(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("away"))

    async def scenario() -> None:
        async with replicas(database_name, 1, Engine()) as (client,):
            with monkeypatch.context() as patched:
                patched.setattr("serve.keys.window_rows.WindowRows._connected", away)
                answer = await post(client, limited)
                assert answer.status_code == 503
                assert answer.json()["error"]["code"] == "limits_unavailable"
                assert (await post(client, unlimited)).status_code == 200
            assert (await post(client, limited)).status_code == 200

    asyncio.run(scenario())
