"""What the person's own environment and folder must not change about our server."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.errors import ServerDidNotStart
from serve.model import ServedModel
from serve.process import ServerProcess


class _Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def answering() -> Iterator[str]:
    """An address that answers 200 to everything."""
    with http.server.HTTPServer(("127.0.0.1", 0), _Ready) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_server_is_asked_past_the_proxy_that_is_set_for_others(
    tmp_path: Path, answering: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    process = ServerProcess(ServedModel(tmp_path, "m"), tmp_path / "log")
    process.root_url = answering
    assert process.ready()


def test_a_file_of_the_persons_own_folder_does_not_run_in_our_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "serve.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    absent = ServedModel(tmp_path / "absent", "absent")
    with (
        pytest.raises(ServerDidNotStart, match="exit code 2"),
        ServerProcess(absent, tmp_path / "log"),
    ):
        pass
