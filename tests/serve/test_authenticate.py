"""Who may ask what: keys in front of a tiny app, without HTTP."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from gateway_calls import call
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.gateway.authenticate import AllowedModel, Authenticate
from serve.gateway.errors import send_json
from serve.gateway.exchange import Exchange, exchange_of
from serve.gateway.models import ModelCard, ModelsRoute
from serve.keys import known as known_module
from serve.keys.database import Database
from serve.keys.known import KnownKeys, Unfit
from serve.keys.opening import Keys
from serve.keys.secret import matches
from serve.keys.store import KeyStore

CARDS = [ModelCard(name, 1, 64) for name in ("base", "support@1", "sales@1")]


class Recorder:
    """Keeps the exchange of the last request that came through, or was refused."""

    def __init__(self) -> None:
        self.passed: Exchange | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.passed = exchange_of(scope)
        await send_json(send, 200, {})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[KeyStore]:
    database = Database(str(tmp_path / "keys.db"))
    yield KeyStore(database)
    database.close()


def ask(
    app: ASGIApp, path: str, key: str | None = None, model: str | None = None, method: str = "POST"
) -> httpx.Response:
    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        exchange_of(scope).model = model
        await app(scope, receive, send)

    async def send() -> httpx.Response:
        headers = {} if key is None else {"authorization": f"Bearer {key}".encode("latin-1")}
        transport = httpx.ASGITransport(named)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(send())


def guarded(store: KeyStore, app: ASGIApp | None = None) -> Authenticate:
    return Authenticate(AllowedModel(app or Recorder()), Keys(KnownKeys(store)))


def test_without_keys_anyone_may_ask_until_the_first_is_made(store: KeyStore) -> None:
    known = KnownKeys(store)
    app = Authenticate(Recorder(), Keys(known))
    assert ask(app, "/v1/completions").status_code == 200
    made = store.create("ann")
    known.refresh()
    assert ask(app, "/v1/completions").status_code == 401
    assert ask(app, "/v1/completions", made.text).status_code == 200


def test_a_server_that_other_machines_reach_refuses_while_there_are_no_keys() -> None:
    app = Authenticate(Recorder(), Keys(always_required=True))
    assert ask(app, "/v1/completions").status_code == 401
    assert ask(app, "/v1/completions", "sk-anything").status_code == 401


def test_revoking_the_last_key_does_not_open_the_server(store: KeyStore) -> None:
    made = store.create("ann")
    store.revoke(made.key.id)
    app = guarded(store)
    assert ask(app, "/v1/completions").status_code == 401
    answer = ask(app, "/v1/completions", made.text)
    assert answer.status_code == 401
    assert "revoked" in answer.json()["error"]["message"]


@pytest.mark.parametrize("sent", [None, "", "sk-wrong", "sk-llmkit-aaaaaaaa-" + "a" * 50, "\xff"])
def test_a_missing_or_wrong_key_is_401_in_openais_shape(store: KeyStore, sent: str | None) -> None:
    store.create("ann")
    answer = ask(guarded(store), "/v1/completions", sent)
    assert answer.status_code == 401
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert not sent or sent not in error["message"]


def test_the_layers_behind_learn_whose_key_it_was(store: KeyStore) -> None:
    made, recorder = store.create("ann"), Recorder()
    ask(guarded(store, recorder), "/v1/completions", made.text)
    assert recorder.passed is not None
    assert recorder.passed.key == made.key


@pytest.mark.parametrize("path", ["/metrics", "/v1/adapters", "/v1/adapters/support"])
def test_metrics_and_adapters_are_for_admins(store: KeyStore, path: str) -> None:
    admin, other = store.create("ann", admin=True), store.create("bob")
    assert ask(guarded(store), path, admin.text).status_code == 200
    answer = ask(guarded(store), path, other.text)
    assert answer.status_code == 403
    assert answer.json()["error"]["type"] == "permission_error"
    assert other.text not in answer.text


def test_a_key_may_call_the_routes_it_names_and_no_other(store: KeyStore) -> None:
    made = store.create("prometheus", routes=("/metrics", "/v1/models*"))
    app = guarded(store)
    assert ask(app, "/metrics", made.text).status_code == 200
    assert ask(app, "/v1/models/base", made.text, method="GET").status_code == 200
    assert ask(app, "/v1/completions", made.text).status_code == 403


def test_a_key_may_name_its_models_and_no_other(store: KeyStore) -> None:
    made = store.create("ann", models=("base", "support@*"))
    app = guarded(store)
    for model in ("base", "support@2"):
        assert ask(app, "/v1/chat/completions", made.text, model).status_code == 200
    for other in ("sales@1", "unknown", None):
        answer = ask(app, "/v1/chat/completions", made.text, other)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "model_not_found"
    assert ask(app, "/v1/usage", made.text, method="GET").status_code == 200


def test_a_key_sees_its_models_in_the_list_and_no_other(store: KeyStore) -> None:
    made = store.create("ann", models=("support@*",))
    app = guarded(store, ModelsRoute(Recorder(), lambda: CARDS))
    listed = ask(app, "/v1/models", made.text, method="GET").json()["data"]
    assert [card["id"] for card in listed] == ["support@1"]
    assert ask(app, "/v1/models/support@1", made.text, method="GET").status_code == 200
    hidden = ask(app, "/v1/models/base", made.text, method="GET")
    assert hidden.status_code == 404
    assert "sales" not in hidden.text


def test_no_key_is_believed_once_the_database_has_been_away_for_long(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = store.create("ann")
    app = guarded(store)
    monkeypatch.setattr(known_module, "SECONDS_OF_TRUST", -1.0)
    answer = ask(app, "/v1/completions", made.text)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "keys_unavailable"
    assert "retry-after" in answer.headers


def test_a_secret_is_compared_for_an_unknown_id_as_for_a_known_one(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = store.create("ann")
    known = KnownKeys(store)
    head, _, secret = made.text.rpartition("-")
    compared: list[int] = []

    def noting(given: str, stored: bytes) -> bool:
        compared.append(len(stored))
        return matches(given, stored)

    monkeypatch.setattr(known_module, "matches", noting)
    for text in (f"{head}-{'a' * len(secret)}", f"sk-llmkit-zzzzzzzz-{secret}"):
        assert known.find(text) is Unfit.UNKNOWN
    assert compared == [32, 32]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("LOCALHOST", 200),
        ("playground.localhost", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("testserver", 200),
        ("evil.example", 403),
        ("evil.example:8000", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("192.0.2.1", 403),
        ("[2001:db8::1]:8000", 403),
    ],
)
def test_an_open_server_answers_to_no_name_that_a_stranger_may_have_registered(
    host: str, status: int
) -> None:
    _, sent = call(Authenticate(Recorder(), Keys()), headers={"host": host})
    assert sent[0]["status"] == status


def test_with_keys_any_host_will_do(store: KeyStore) -> None:
    headers = {"host": "llm.example", "authorization": f"Bearer {store.create('ann').text}"}
    _, sent = call(guarded(store), headers=headers, method="GET")
    assert sent[0]["status"] == 200
