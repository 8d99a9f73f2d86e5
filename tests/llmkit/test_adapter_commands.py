"""``llmkit adapters`` against a server that only notes what it is asked."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from llmkit import cli

ADAPTER = {
    "id": "support@3",
    "alias": "support",
    "status": "served",
    "path": "my-run",
    "rank": 8,
    "verified": True,
    "requests": 2,
}


class Noting(HTTPServer):
    asked: list[tuple[str, str, Any, str | None]]
    answer: tuple[int, Any]


class Handler(BaseHTTPRequestHandler):
    server: Noting

    def _answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        asked = (self.command, self.path, body, self.headers.get("authorization"))
        self.server.asked.append(asked)
        status, answer = self.server.answer
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815 (http.server finds them by name)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Noting]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("LLMKIT_API_KEY", raising=False)
    noting = Noting(("127.0.0.1", 0), Handler)
    noting.asked, noting.answer = [], (200, ADAPTER)
    threading.Thread(target=noting.serve_forever, daemon=True).start()
    yield noting
    noting.shutdown()
    noting.server_close()


def llmkit(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["llmkit", "adapters", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def url(server: Noting) -> str:
    return f"http://127.0.0.1:{server.server_port}/v1"


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["load", "URL", "support", "my-run"], ("POST", "/v1/adapters")),
        (["alias", "URL", "support", "2"], ("POST", "/v1/adapters/support/alias")),
        (["rollback", "URL", "support"], ("POST", "/v1/adapters/support/rollback")),
    ],
)
def test_a_command_asks_the_server_and_shows_the_version(
    server: Noting,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    asked: tuple[str, str],
) -> None:
    for address in (url(server), url(server).removesuffix("/v1") + "/"):
        given = [address if word == "URL" else word for word in words]
        assert llmkit(monkeypatch, *given) == 0
        assert server.asked[-1][:2] == asked
        assert "support@3 = support  served, my-run" in capsys.readouterr().out


def test_what_is_to_be_loaded_and_the_key_are_sent(
    server: Noting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMKIT_API_KEY", "sk-1")
    options = ["--version", "7", "--no-alias", "--unverified"]
    assert llmkit(monkeypatch, "load", url(server), "support", "my-run", *options) == 0
    *_, body, key = server.asked[-1]
    assert body == {
        "name": "support",
        "path": "my-run",
        "version": 7,
        "alias": False,
        "unverified": True,
    }
    assert key == "Bearer sk-1"


def test_the_list_shows_versions_and_slots(
    server: Noting, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = (200, {"data": [ADAPTER], "slots": {"total": 4, "used": 1}})
    assert llmkit(monkeypatch, "list", url(server)) == 0
    shown = capsys.readouterr()
    assert "2 requests under way" in shown.out
    assert "1 of 4 slots" in shown.err
    assert llmkit(monkeypatch, "list", url(server), "--json") == 0
    assert json.loads(capsys.readouterr().out)["slots"]["total"] == 4


def test_unloading_says_how_many_requests_were_ended(
    server: Noting, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = (200, {"id": "support@3", "deleted": True, "requests_ended": 2})
    assert llmkit(monkeypatch, "unload", url(server), "support@3") == 0
    assert server.asked[-1][:2] == ("DELETE", "/v1/adapters/support@3")
    assert "unloaded; 2 requests were ended" in capsys.readouterr().out
    server.answer = (200, {"id": "support", "deleted": True})
    assert llmkit(monkeypatch, "unload", url(server), "support") == 0
    assert "support is no alias any more" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "code", "ended"),
    [(400, "adapter_not_usable", 3), (409, "no_free_slot", 2), (401, "x", 2), (500, "x", 1)],
)
def test_a_refusal_is_told_in_the_servers_words(
    server: Noting,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: int,
    code: str,
    ended: int,
) -> None:
    server.answer = (status, {"error": {"message": "because of this", "code": code}})
    assert llmkit(monkeypatch, "rollback", url(server), "support") == ended
    assert "because of this" in capsys.readouterr().err


def test_a_server_that_is_none_of_ours_is_told(
    server: Noting, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for answer in (
        (200, b"<html>"),
        (200, []),
        (404, {"detail": "Not Found"}),
        (404, {"error": "x"}),
    ):
        server.answer = answer
        assert llmkit(monkeypatch, "list", url(server)) in (1, 2)
    for address in ("http://127.0.0.1:1/v1", "nonsense", "http://[::1"):
        assert llmkit(monkeypatch, "list", address) == 1
    assert "Traceback" not in capsys.readouterr().err
