"""A server with a fake engine, as a process of its own that tests may kill.

``python batch_stub.py SETTINGS ASKED``: the settings as JSON; the file that gets a line for each
request that reached the engine. Prints its address when it is ready.
"""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import openai
from starlette.types import Receive, Scope, Send

from serve.app import serve
from serve.gateway.chain import EngineApp
from serve.gateway.errors import error_body, send_json
from serve.gateway.exchange import exchange_of
from serve.keys.opening import open_keys
from serve.listening import address_of, listen
from serve.requests.bounds import Bounds
from serve.settings import ServeSettings

CHAT = "/v1/chat/completions"


class StubEngine:
    """Answers chats with what was said; "fail" with 500, "hang" never, others after a moment."""

    dead = False

    def __init__(self, asked: Path, seconds: float) -> None:
        self._asked = asked
        self._seconds = seconds

    @asynccontextmanager
    async def app(self) -> AsyncIterator[EngineApp]:
        yield EngineApp(self._answer, Bounds(lambda: ["stub", "other"], 512, 100, max_running=32))

    def shutdown(self) -> None:
        pass

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        exchange = exchange_of(scope)
        said = json.loads(body)["messages"][0]["content"]
        with self._asked.open("a") as file:
            file.write(json.dumps([said, exchange.priority]) + "\n")
        if said == "die":
            signal.raise_signal(signal.SIGKILL)
        if said == "fail":
            return await send_json(send, 500, error_body("no", kind="server_error", code="x"))
        await asyncio.sleep(1000 if said == "hang" else self._seconds)
        exchange.prompt_tokens, exchange.completion_tokens = 3, 2
        await send_json(
            send,
            200,
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1,
                "model": "stub",
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": said},
                    }
                ],
                "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
            },
        )
        return None


class StubServer:
    """The process."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.asked_file = folder / "asked"
        self.folder = folder / "offline"
        self._settings = {"batches_folder": str(self.folder), **settings}
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(self._settings), str(self.asked_file)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url

    def client(self, key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def asked(self) -> list[tuple[str, int]]:
        """What reached the engine, and at which priority."""
        if not self.asked_file.exists():
            return []
        lines = self.asked_file.read_text().splitlines()
        return [(said, priority) for said, priority in map(json.loads, lines)]

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self._process is not None
        self._process.send_signal(how)
        return self.wait()

    def wait(self) -> int:
        assert self._process is not None
        code = self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None
        return code

    def __enter__(self) -> "StubServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.end(signal.SIGKILL)


def lines_of(said: Sequence[str], **body: Any) -> bytes:
    """A file of chats that say these; the custom ids are r1, r2, ..."""
    return b"".join(line(f"r{number}", text, **body) for number, text in enumerate(said, 1))


def line(custom_id: str, said: str, **body: Any) -> bytes:
    asked = {"model": "stub", "messages": [{"role": "user", "content": said}], **body}
    request = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": asked}
    return json.dumps(request).encode() + b"\n"


def submit(client: openai.OpenAI, content: bytes, window: Any = "24h") -> str:
    """Upload and start; the batch's id."""
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window=window, metadata={"for": "test"}
    )
    return batch.id


def ended(client: openai.OpenAI, batch_id: str, seconds: float = 20) -> openai.types.Batch:
    """The batch, once it has ended."""
    until = time.monotonic() + seconds
    while True:
        batch = client.batches.retrieve(batch_id)
        if batch.status in ("completed", "failed", "expired", "cancelled"):
            return batch
        assert time.monotonic() < until, batch
        time.sleep(0.05)


def results(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """The lines of an output or error file."""
    assert file_id is not None
    return [json.loads(text) for text in client.files.content(file_id).text.splitlines()]


@contextmanager
def stub_server(folder: Path, **settings: Any) -> Iterator[StubServer]:
    with StubServer(folder, **settings) as server:
        yield server


def main() -> None:
    values = json.loads(sys.argv[1])
    seconds = values.pop("seconds", 0.0)
    settings = ServeSettings.model_validate(values)
    listening = listen("127.0.0.1", 0)
    with open_keys(settings) as keys:
        asyncio.run(
            serve(
                lambda: StubEngine(Path(sys.argv[2]), seconds),
                listening,
                settings,
                on_ready=lambda: print(address_of(listening), flush=True),
                keys=keys,
            )
        )


if __name__ == "__main__":
    main()
