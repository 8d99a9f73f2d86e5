"""Keys on the real engine: what is charged is what the engine computed."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.keys.database import Database
from serve.keys.key import Limits
from serve.keys.store import KeyStore, NewKey
from serve.model import open_model
from serve.process import ServerProcess
from serve.settings import ServeSettings

pytestmark = pytest.mark.end_to_end

PROMPT = "how do I train a model?"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyStore]:
    database = Database(str(tmp_path_factory.mktemp("keys") / "keys.db"))
    store = KeyStore(database)
    store.create("first")
    yield store
    database.close()


@pytest.fixture(scope="module")
def keyed(
    store: KeyStore, smollm2: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The root URL of a server that asks for keys."""
    settings = ServeSettings(max_model_len=512, database=str(store._database.engine.url.database))
    log = tmp_path_factory.mktemp("keyed") / "server.log"
    with ServerProcess(open_model(smollm2, name="smollm2"), log, settings) as running:
        yield running.root_url
    assert "keys: 1 made; requests need one." in log.read_text()


@pytest.fixture
def new_key(store: KeyStore, keyed: str) -> Callable[..., NewKey]:
    """Makes a key that the server knows."""

    def new(limits: Limits | None = None, *, admin: bool = False) -> NewKey:
        made = store.create("ann", limits=limits, admin=admin)
        end = time.monotonic() + 2
        while get(keyed, "/v1/models", made).status_code == 401:
            assert time.monotonic() < end
        return made

    return new


def get(root: str, path: str, key: NewKey | None = None) -> httpx.Response:
    headers = {"authorization": f"Bearer {key.text}"} if key else {}
    return httpx.get(f"{root}{path}", headers=headers)


def complete(root: str, key: NewKey, **body: Any) -> httpx.Response:
    content = {"model": "smollm2", "prompt": PROMPT, "max_tokens": 8, "ignore_eos": True, **body}
    headers = {"authorization": f"Bearer {key.text}"}
    return httpx.post(f"{root}/v1/completions", json=content, headers=headers, timeout=60)


def used(root: str, key: NewKey) -> Mapping[str, Any]:
    rows: list[Mapping[str, Any]] = get(root, "/v1/usage", key).json()["data"]
    return rows[0]


def test_only_liveness_and_the_page_answer_without_a_key(keyed: str) -> None:
    answers = {path: get(keyed, path).status_code for path in ("/health", "/ready", "/")}
    assert set(answers.values()) == {200}
    for path in ("/metrics", "/v1/models", "/v1/models/smollm2", "/v1/usage", "/v1/adapters"):
        assert get(keyed, path).status_code == 401, path
    for path in ("/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"):
        assert httpx.post(f"{keyed}{path}", json={"model": "smollm2"}).status_code == 401, path


def test_usage_is_the_engines_count(keyed: str, new_key: Callable[..., NewKey]) -> None:
    key = new_key()
    told = complete(keyed, key).json()["usage"]
    row = used(keyed, key)
    assert row["model"] == "smollm2"
    assert row["prompt_tokens"] == told["prompt_tokens"] > 0
    assert row["completion_tokens"] == told["completion_tokens"] == 8


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_is_charged(
    keyed: str, new_key: Callable[..., NewKey], stream: bool
) -> None:
    key = new_key(Limits(concurrent_requests=1, tokens_per_minute=220))
    content = {"model": "smollm2", "prompt": PROMPT, "max_tokens": 200, "ignore_eos": True}
    headers = {"authorization": f"Bearer {key.text}"}
    url = f"{keyed}/v1/completions"
    if stream:
        with httpx.stream("POST", url, json=content | {"stream": True}, headers=headers) as answer:
            assert answer.status_code == 200
            next(answer.iter_lines())
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url, json=content, headers=headers, timeout=0.7)
    end = time.monotonic() + 10
    # The tokens put aside come back, and one request at a time goes on.
    while (after := complete(keyed, key, max_tokens=20)).status_code == 429:
        assert time.monotonic() < end, after.text
        time.sleep(0.1)
    row = used(keyed, key)
    told = after.json()["usage"]
    assert row["requests"] == 2
    assert row["prompt_tokens"] == 2 * told["prompt_tokens"]
    assert 20 < row["completion_tokens"] < 220


def test_tokens_per_minute_are_never_exceeded(keyed: str, new_key: Callable[..., NewKey]) -> None:
    prompt = complete(keyed, new_key()).json()["usage"]["prompt_tokens"]
    # After three, 23 are left: enough for the answer, not for prompt and answer.
    each = prompt + 20
    key = new_key(Limits(tokens_per_minute=3 * each + 23))
    answers = [complete(keyed, key, max_tokens=20) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert f"may use {each} tokens" not in answers[3].text  # it will fit later
    assert int(answers[3].headers["retry-after"]) > 30
    row = used(keyed, key)
    assert row["prompt_tokens"] + row["completion_tokens"] == 3 * each


def test_prometheus_needs_an_admin_key(keyed: str, new_key: Callable[..., NewKey]) -> None:
    assert get(keyed, "/metrics", new_key()).status_code == 403
    assert "llmkit_requests_total" in get(keyed, "/metrics", new_key(admin=True)).text


def test_without_keys_a_server_asked_to_listen_everywhere_does_not(
    smollm2: Path, tmp_path: Path
) -> None:
    arguments = ["--host", "0.0.0.0", "--port", "0", "--max-model-len", "512"]
    arguments += ["--database", str(tmp_path / "keys.db")]
    server = subprocess.Popen(
        [sys.executable, "-m", "serve", str(smollm2), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert server.stdout is not None
    try:
        lines: list[str] = []
        for line in server.stdout:
            lines.append(line)
            if line.startswith("keys:"):
                break
        assert any(" at http://127.0.0.1:" in line for line in lines), lines
        assert "no other machine can" in lines[-1]
        port = lines[-2].rpartition(":")[2].partition("/")[0]
        listening = json.dumps(
            [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        )
        assert f"0100007F:{int(port):04X}" in listening
        assert f"00000000:{int(port):04X}" not in listening
    finally:
        server.terminate()
        server.wait(60)
