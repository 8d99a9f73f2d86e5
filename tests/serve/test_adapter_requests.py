"""Requests to adapters and /v1/adapters, through the gateway in front of a stub."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from adapter_folders import NotingEngine, make_base, make_registry, make_run
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.adapters.names import Version
from serve.adapters.registry import AdapterRegistry, Room, Wanted
from serve.gateway.adapter_requests import AdapterRequests
from serve.gateway.chain import EngineApp, Gateway
from serve.gateway.errors import send_json
from serve.gateway.exchange import Exchange, exchange_of, with_exchange
from serve.gateway.readiness import Readiness
from serve.keys.key import Key
from serve.requests.bounds import Bounds
from serve.settings import ServeSettings

ROOM = Room(2, 8, ("demo", "base"), frozenset({"fixed"}))
COMPLETIONS = "/v1/completions"


class Stub:
    """Answers with what it was asked, once `go_on` is set."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.began: list[str] = []
        self.ended_early = 0
        self.models: list[str | None] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        length = dict(scope["headers"]).get(b"content-length")
        assert length is None or int(length) == len(body)
        self.models.append(exchange_of(scope).model)
        self.began.append(json.loads(body).get("model"))
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.ended_early += 1
            raise
        await send_json(send, 200, json.loads(body))


class Life:
    """A gateway over a stub, with a registry over an engine that notes."""

    def __init__(
        self, registry: AdapterRegistry, engine: NotingEngine, key: Key | None, **settings: Any
    ) -> None:
        self.registry, self.engine, self.stub = registry, engine, Stub()
        gateway = Gateway(ServeSettings(**settings))
        bounds = Bounds(lambda: ["demo", "base", "fixed", *registry.names()], 64, 100)
        readiness = Readiness()
        inside = gateway.around(EngineApp(self.stub, bounds, registry)).app
        readiness.ready(_as(key, inside))
        transport = httpx.ASGITransport(gateway.outside(readiness))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://test")

    async def ask(self, model: Any, **more: Any) -> httpx.Response:
        body = {"prompt": "x", "model": model} | more
        return await self.client.post(COMPLETIONS, json=body, timeout=20)

    async def load(self, name: str, path: str, **more: Any) -> httpx.Response:
        return await self.client.post("/v1/adapters", json={"name": name, "path": path} | more)

    async def until(self, true: Callable[[], object]) -> None:
        while not true():
            await asyncio.sleep(0.005)


def _as(key: Key | None, app: ASGIApp) -> ASGIApp:
    async def asked(scope: Scope, receive: Receive, send: Send) -> None:
        if key is not None:
            exchange_of(scope).key = key
        await app(scope, receive, send)

    return asked


@pytest.fixture
def live(tmp_path: Path) -> Callable[..., None]:
    base = make_base(tmp_path / "base")
    for number in (1, 2):
        make_run(tmp_path / "runs" / f"run-{number}", base, fill=float(number))

    def run(
        scenario: Callable[[Life], Awaitable[None]], *, key: Key | None = None, **settings: Any
    ) -> None:
        async def life() -> None:
            engine = NotingEngine()
            registry = make_registry(tmp_path / "runs", base, engine, ROOM)
            await registry.restore()
            it = Life(registry, engine, key, **settings)
            async with it.client:
                await asyncio.wait_for(scenario(it), 20)

        asyncio.run(life())

    return run


Live = Callable[..., None]


def test_an_alias_is_asked_of_the_version_that_it_means(live: Live) -> None:
    async def scenario(life: Life) -> None:
        await life.registry.load(Wanted("a", "run-1"))
        await life.registry.load(Wanted("a", "run-2", alias=True))
        assert (await life.ask("a", prompt="süß")).json() == {"prompt": "süß", "model": "a@2"}
        assert (await life.ask("a@1")).json()["model"] == "a@1"
        await life.registry.roll_back("a")
        assert (await life.ask("a")).json()["model"] == "a@1"
        assert life.stub.models == ["a@2", "a@1", "a@1"]

    live(scenario)


def test_requests_to_the_base_pass_as_they_are(live: Live) -> None:
    async def scenario(life: Life) -> None:
        for name in ("demo", "base", "fixed"):
            assert (await life.ask(name)).json()["model"] == name
        assert life.stub.models == ["demo", "demo", "fixed"]

    live(scenario)


def test_a_name_that_means_nothing_is_not_found(live: Live) -> None:
    async def scenario(life: Life) -> None:
        await life.registry.load(Wanted("a", "run-1", alias=False))
        for name in ("a", "a@2", "a@01", "b", "x" * 100_000):
            answer = await life.ask(name)
            assert answer.status_code == 404
            assert answer.json()["error"]["code"] == "model_not_found"
            assert len(answer.text) < 1000
        assert life.stub.began == []

    live(scenario)


def test_a_request_under_way_stays_with_its_version(live: Live) -> None:
    async def scenario(life: Life) -> None:
        await life.registry.load(Wanted("a", "run-1"))
        await life.registry.load(Wanted("a", "run-2"))
        life.stub.go_on.clear()
        asked = asyncio.create_task(life.ask("a"))
        await life.until(lambda: life.stub.began)
        await life.client.post("/v1/adapters/a/alias", json={"version": 2})
        life.stub.go_on.set()
        assert (await asked).json()["model"] == "a@1"
        assert (await life.ask("a")).json()["model"] == "a@2"

    live(scenario)


def test_a_request_in_the_queue_stays_with_its_version_too_and_unloading_waits_for_it(
    live: Live,
) -> None:
    async def scenario(life: Life) -> None:
        await life.registry.load(Wanted("a", "run-1"))
        await life.registry.load(Wanted("a", "run-2"))
        life.stub.go_on.clear()
        first = asyncio.create_task(life.ask("demo"))
        await life.until(lambda: life.stub.began)
        queued = asyncio.create_task(life.ask("a"))

        async def requests() -> int:
            listed = (await life.client.get("/v1/adapters")).json()["data"]
            return next(each["requests"] for each in listed if each["id"] == "a@1")

        while not await requests():
            await asyncio.sleep(0.001)
        await life.client.post("/v1/adapters/a/alias", json={"version": 2})
        unloading = asyncio.create_task(life.client.delete("/v1/adapters/a@1"))
        await life.until(lambda: life.registry.draining)
        life.stub.go_on.set()
        assert (await queued).json()["model"] == "a@1"
        assert (await unloading).json()["requests_ended"] == 0
        assert (await first).status_code == 200

    live(scenario, max_running=1)


def test_unloading_waits_for_requests_and_refuses_new_ones(live: Live) -> None:
    async def scenario(life: Life) -> None:
        await life.registry.load(Wanted("a", "run-1", alias=False))
        life.stub.go_on.clear()
        asked = asyncio.create_task(life.ask("a@1"))
        await life.until(lambda: life.stub.began)
        unloading = asyncio.create_task(life.client.delete("/v1/adapters/a@1"))
        await life.until(lambda: life.registry.draining)
        listed = (await life.client.get("/v1/adapters")).json()
        assert [(each["id"], each["status"], each["requests"]) for each in listed["data"]] == [
            ("a@1", "draining", 1)
        ]
        assert (await life.ask("a@1")).status_code == 404
        assert not unloading.done()
        assert "a@1" in life.engine.inside
        life.stub.go_on.set()
        assert (await asked).json()["model"] == "a@1"
        assert (await unloading).json()["requests_ended"] == 0
        assert life.engine.inside == {}
        assert (await life.client.get("/v1/adapters")).json()["slots"] == {"total": 2, "used": 0}

    live(scenario)


def test_requests_that_take_too_long_are_ended_and_told_so(live: Live) -> None:
    async def scenario(life: Life) -> None:
        await life.registry.load(Wanted("a", "run-1", alias=False))
        life.stub.go_on.clear()
        asked = [asyncio.create_task(life.ask(name)) for name in ("a@1", "a@1", "demo")]
        await life.until(lambda: len(life.stub.began) == 3)
        done = (await life.client.delete("/v1/adapters/a@1")).json()
        assert done == {
            "id": "a@1",
            "object": "adapter.deleted",
            "deleted": True,
            "requests_ended": 2,
        }
        for each in asked[:2]:
            answer = await each
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "adapter_unloaded"
        assert life.stub.ended_early == 2
        life.stub.go_on.set()
        assert (await asked[2]).status_code == 200

    live(scenario, drain_seconds=0.05)


def test_the_whole_life_of_an_adapter_over_http(live: Live) -> None:
    async def scenario(life: Life) -> None:
        loaded = await life.load("a", "run-1")
        assert loaded.status_code == 201
        assert loaded.json() | {"sha256": "", "loaded_at": 0} == {
            "id": "a@1",
            "object": "adapter",
            "name": "a",
            "version": 1,
            "alias": "a",
            "status": "served",
            "base": "demo",
            "path": "run-1",
            "sha256": "",
            "rank": 2,
            "verified": True,
            "loaded_at": 0,
            "requests": 0,
        }
        assert (await life.load("a", "run-2", alias=True)).json()["alias"] == "a"
        post = life.client.post
        assert (await post("/v1/adapters/a/rollback", json={})).json()["id"] == "a@1"
        assert (await post("/v1/adapters/a/alias", json={"version": 2})).json()["id"] == "a@2"
        assert (await life.client.delete("/v1/adapters/a%401")).status_code == 200
        assert (await life.client.delete("/v1/adapters/a@2")).status_code == 409
        assert (await life.client.delete("/v1/adapters/a")).json()["deleted"] is True
        assert (await life.client.delete("/v1/adapters/a@2")).status_code == 200
        assert (await life.client.get("/v1/adapters")).json()["data"] == []

    live(scenario)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": "a"}, "path"),
        ({"name": "a", "path": 1}, "path"),
        ({"name": "a", "path": "x", "version": 0}, "version"),
        ({"name": "a", "path": "x", "version": "1"}, "version"),
        ({"name": "a", "path": "x", "more": 1}, "more"),
        ({"name": "a@1", "path": "run-1"}, "name"),
        ({"name": "a", "path": "../run-1"}, "path"),
        ([], None),
    ],
)
def test_a_wrong_body_is_a_400_that_names_the_field(live: Live, body: Any, param: str) -> None:
    async def scenario(life: Life) -> None:
        answer = await life.client.post("/v1/adapters", json=body)
        assert answer.status_code == 400
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert answer.json()["error"]["param"] == param

    live(scenario)


def test_hostile_bodies_and_names_are_4xx(live: Live) -> None:
    async def scenario(life: Life) -> None:
        headers = {"content-type": "application/json"}
        for content, status in [
            (b"{", 400),
            (b"\xff", 400),
            (b"[" * 60_000, 400),
            (b"{}" + b" " * 70_000, 400),
            (b'{"name": "\\ud800", "path": "x"}', 400),
        ]:
            answer = await life.client.post("/v1/adapters", content=content, headers=headers)
            assert answer.status_code == status
        for path in ("/v1/adapters/..%2f..%2fetc", "/v1/adapters/a@1/x", "/v1/adapters/a@0"):
            assert (await life.client.delete(path)).status_code in (404, 405)
        for path in ("/v1/adapters/nope/rollback", "/v1/adapters/nope/alias"):
            assert (await life.client.post(path, json={"version": 1})).status_code == 404

    live(scenario)


def test_what_another_sites_page_could_send_is_refused(live: Live) -> None:
    async def scenario(life: Life) -> None:
        content = json.dumps({"name": "a", "path": "run-1"})
        for headers in ({}, {"content-type": "text/plain"}):
            for path in ("/v1/adapters", "/v1/adapters/a/rollback"):
                answer = await life.client.post(path, content=content, headers=headers)
                assert answer.json()["error"]["code"] == "invalid_content_type"
        assert life.registry.names() == []

    live(scenario)


@pytest.mark.parametrize(("admin", "status"), [(False, 403), (True, 200)])
def test_adapters_are_for_administrators(live: Live, admin: bool, status: int) -> None:
    async def scenario(life: Life) -> None:
        assert (await life.client.get("/v1/adapters")).status_code == status
        answer = await life.load("a", "run-1")
        assert answer.status_code == (201 if admin else 403)
        assert bool(life.registry.names()) is admin

    live(scenario, key=Key("k", "someone", admin=admin))


def test_no_answer_holds_a_path_of_the_machine(live: Live, tmp_path: Path) -> None:
    async def scenario(life: Life) -> None:
        def fails(*_: object) -> None:
            raise OSError(f"{tmp_path} is full")

        life.registry._store.copy = fails  # type: ignore[assignment]
        answer = await life.load("a", "run-1")
        assert answer.status_code == 500
        assert str(tmp_path) not in answer.text
        assert str(tmp_path) not in (await life.load("a", "none")).text
        assert str(tmp_path) not in (await life.client.get("/v1/adapters")).text

    live(scenario)


def test_a_server_without_folders_for_adapters_and_batches_says_so() -> None:
    async def scenario() -> None:
        stub = Stub()
        app = Gateway(ServeSettings()).around(EngineApp(stub, Bounds(lambda: ["demo"], 64, 9))).app
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for path, code in (
                ("/v1/adapters", "adapters_off"),
                ("/v1/adapters/a@1", "adapters_off"),
                ("/v1/batches", "batches_off"),
                ("/v1/files/file-1/content", "batches_off"),
            ):
                answer = await client.get(path)
                assert (answer.status_code, answer.json()["error"]["code"]) == (404, code)
            assert (
                await client.post(COMPLETIONS, json={"model": "demo", "prompt": "x"})
            ).status_code == 200

    asyncio.run(scenario())


def test_drained_versions_are_forgotten(live: Live) -> None:
    async def scenario(life: Life) -> None:
        for _ in range(3):
            await life.registry.load(Wanted("a", "run-1", 1, alias=False))
            assert (await life.ask("a@1")).status_code == 200
            await life.client.delete("/v1/adapters/a@1")
        assert life.registry.resolve("a@1") is None
        assert life.registry.state.served() == {}
        assert Version("a", 1) not in life.registry.draining

    live(scenario)


def test_a_key_with_models_is_not_told_which_adapters_there_are_beside_an_unloaded_one(
    live: Live,
) -> None:
    async def scenario(life: Life) -> None:
        await life.registry.load(Wanted("secret", "run-1", 1, alias=True))
        app = AdapterRequests(life.stub, life.registry, drain_seconds=1)
        # It was let in while its adapter was there, and waited for its key's limits.
        exchange = Exchange(body={"model": "support@1"}, key=Key("k", "ann", models=("support@*",)))
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"{}"}

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": COMPLETIONS, "headers": []}
        await app(with_exchange(scope, exchange), receive, send)
        assert sent[0]["status"] == 404
        assert b"secret" not in sent[1]["body"]
        assert b"support@*" in sent[1]["body"]

    live(scenario)
