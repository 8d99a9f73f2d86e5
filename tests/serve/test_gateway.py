"""The gateway's parts in front of a tiny app, without HTTP."""

import asyncio

import httpx
import pytest
from gateway_calls import call as call_layer
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.gateway.chain import EngineApp, Gateway
from serve.gateway.errors import send_json
from serve.gateway.exchange import exchange_of
from serve.gateway.models import ModelCard, ModelsRoute
from serve.gateway.readiness import Readiness, ReadinessGate
from serve.gateway.routes import ROUTES, AllowList
from serve.requests.bounds import Bounds
from serve.settings import ServeSettings


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await send_json(send, 200, {"path": scope["path"]})


def call(app: ASGIApp, method: str, path: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path)

    return asyncio.run(ask())


@pytest.fixture
def readiness() -> Readiness:
    return Readiness()


@pytest.fixture
def gateway(readiness: Readiness) -> ASGIApp:
    return AllowList(ReadinessGate(readiness))


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/v1/messages", "/invocations", "/v1/models/", "/v1/load_lora_adapter"]
)
def test_a_path_not_offered_is_404_in_openais_shape(path: str) -> None:
    answer = call(AllowList(echo), "POST", path)
    assert answer.status_code == 404
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.json()["error"]["code"] == "unknown_url"


def test_a_wrong_method_is_405_and_names_the_right_one() -> None:
    answer = call(AllowList(echo), "GET", "/v1/chat/completions")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert answer.json()["error"]["code"] == "method_not_allowed"


def test_every_offered_route_is_passed_on() -> None:
    for route, methods in ROUTES.items():
        path = route.replace("{id}", "org/name")
        assert call(AllowList(echo), methods[0], path).json() == {"path": path}


def test_the_route_is_named_by_its_template_and_no_other_name_is() -> None:
    named: list[str | None] = []

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        named.append(exchange_of(scope).route)
        await echo(scope, receive, send)

    for path in ("/v1/models/org/name", "/v1/models", "/tokenize"):
        call(AllowList(note), "POST" if path == "/tokenize" else "GET", path)
    assert named == ["/v1/models/{id}", "/v1/models", "/tokenize"]


def test_a_websocket_is_refused() -> None:
    sent: list[str] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(str(message["type"]))

    async def receive() -> dict[str, object]:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/v1/realtime"}
    asyncio.run(AllowList(echo)(scope, receive, send))  # type: ignore[arg-type]
    assert sent == ["websocket.close"]


def test_the_server_is_alive_before_it_is_ready(gateway: ASGIApp) -> None:
    assert call(gateway, "GET", "/health").status_code == 200
    answer = call(gateway, "GET", "/ready")
    assert answer.status_code == 503
    assert answer.json()["status"] == "loading"
    assert int(answer.headers["retry-after"]) > 0


def test_requests_before_ready_are_503_in_openais_shape(gateway: ASGIApp) -> None:
    answer = call(gateway, "POST", "/v1/chat/completions")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "server_loading"
    assert "retry-after" in answer.headers


def test_requests_pass_once_ready(gateway: ASGIApp, readiness: Readiness) -> None:
    readiness.ready(echo)
    assert call(gateway, "GET", "/ready").status_code == 200
    assert call(gateway, "GET", "/metrics").json() == {"path": "/metrics"}


@pytest.mark.parametrize("end", ["drain", "fail"])
def test_a_draining_or_failed_server_is_alive_but_refuses(
    gateway: ASGIApp, readiness: Readiness, end: str
) -> None:
    readiness.ready(echo)
    getattr(readiness, end)()
    assert call(gateway, "GET", "/health").status_code == 200
    assert call(gateway, "GET", "/ready").status_code == 503
    assert call(gateway, "POST", "/v1/completions").status_code == 503


CARDS = [ModelCard("base", 1, 64), ModelCard("org/adapter", 2, 64, parent="base")]


def test_the_models_list_names_every_model_and_no_path() -> None:
    body = call(ModelsRoute(echo, lambda: CARDS), "GET", "/v1/models").json()
    assert [card["id"] for card in body["data"]] == ["base", "org/adapter"]
    assert all("root" not in card for card in body["data"])


@pytest.mark.parametrize("path", ["org/adapter", "org%2Fadapter"])
def test_one_model_is_found_by_a_name_with_a_slash(path: str) -> None:
    body = call(ModelsRoute(echo, lambda: CARDS), "GET", f"/v1/models/{path}").json()
    assert (body["id"], body["parent"]) == ("org/adapter", "base")


def test_an_unknown_model_is_404_and_names_those_served() -> None:
    answer = call(ModelsRoute(echo, lambda: CARDS), "GET", "/v1/models/other")
    assert answer.status_code == 404
    assert answer.json()["error"]["param"] == "model"
    assert "base" in answer.json()["error"]["message"]


def test_metrics_say_how_many_wait_for_a_turn() -> None:
    async def scenario() -> None:
        go_on = asyncio.Event()

        async def engine(scope: Scope, receive: Receive, send: Send) -> None:
            await go_on.wait()
            await send_json(send, 200, {})

        gateway = Gateway(ServeSettings(database="none", max_running=1))
        app = gateway.around(EngineApp(engine, Bounds(lambda: ["base"], 64, 9))).app
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            asked = {"model": "base", "prompt": "x"}
            answers = [asyncio.create_task(client.post("/v1/completions", json=asked))]
            answers += [asyncio.create_task(client.post("/v1/completions", json=asked))]
            await asyncio.sleep(0.05)
            assert "llmkit_requests_waiting 1.0" in (await client.get("/metrics")).text
            go_on.set()
            await asyncio.gather(*answers)
            assert "llmkit_requests_waiting 0.0" in (await client.get("/metrics")).text

    asyncio.run(scenario())


@pytest.mark.parametrize("phase", ["drain", "fail"])
def test_what_is_refused_before_the_engine_can_answer_is_noted(
    readiness: Readiness, phase: str
) -> None:
    getattr(readiness, phase)()
    exchange, _ = call_layer(ReadinessGate(readiness))
    assert exchange.rejected == f"server_{readiness.phase.value}"


def test_a_model_that_is_not_there_is_noted() -> None:
    exchange, _ = call_layer(ModelsRoute(echo, list), "/v1/models/none", method="GET")
    assert exchange.rejected == "model_not_found"
