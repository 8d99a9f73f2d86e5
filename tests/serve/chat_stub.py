"""An OpenAI server of a few lines: quick, and wrong on request. Pages and clients are tested on it.

What it answers follows from the last user message:

    "error ..."   400 with OpenAI's error object
    "break ..."   two tokens, then an error event
    "cut ..."     two tokens, then the connection ends without [DONE]
    "slow ..."    tokens without end, until the client goes
    "nothing"     an answer without text
    else          "MODEL heard: MESSAGE", a word a token
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.gateway.errors import error_body, send_error, send_json
from serve.listening import address_of, listen

METRICS = """\
vllm:num_requests_running{{engine="0"}} {running}
llmkit_requests_waiting 3
vllm:kv_cache_usage_perc{{engine="0"}} 0.425
vllm:generation_tokens_total{{engine="0"}} {tokens}
"""


@dataclass
class ChatStub:
    """The app, and what it was asked."""

    models: tuple[tuple[str, str | None], ...] = (("base", None), ("support@3", "base"))
    """Names and parents."""

    key: str | None = None
    """The only key it takes; without one it takes all."""

    ready: bool = True
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of the chat requests, in order."""

    paths: list[str] = field(default_factory=list)
    authorizations: set[str | None] = field(default_factory=set)
    """What requests had in that header."""

    gone: int = 0
    """How many clients left before their answer was complete."""

    tokens: int = 0
    running: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        self.paths.append(path)
        given = dict(scope["headers"]).get(b"authorization")
        self.authorizations.add(given and given.decode())
        if path == "/ready":
            status = "ready" if self.ready else "loading"
            await send_json(send, 200 if self.ready else 503, {"status": status, "seconds": 1})
        elif not self.ready:
            await send_error(
                send, 503, "still loading.", kind="server_error", code="server_loading"
            )
        elif self.key and given != f"Bearer {self.key}".encode():
            await send_error(
                send, 401, "no such key.", kind="authentication_error", code="invalid_api_key"
            )
        elif path == "/v1/models":
            data = [
                {
                    "id": name,
                    "object": "model",
                    "created": 1,
                    "owned_by": "llmkit",
                    "parent": parent,
                }
                for name, parent in self.models
            ]
            await send_json(send, 200, {"object": "list", "data": data})
        elif path == "/metrics":
            await self._metrics(send)
        elif path == "/v1/chat/completions":
            await self._chat(json.loads(await _body(receive)), receive, send)
        else:
            await send_error(send, 404, "no.", kind="invalid_request_error", code="unknown_url")

    async def _metrics(self, send: Send) -> None:
        text = METRICS.format(running=self.running, tokens=self.tokens).encode()
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/plain")],
            }
        )
        await send({"type": "http.response.body", "body": text})

    async def _chat(self, body: dict[str, Any], receive: Receive, send: Send) -> None:
        self.requests.append(body)
        message = body["messages"][-1]["content"]
        kind = message.split()[0]
        if kind == "error":
            await send_error(
                send,
                400,
                f"cannot answer <b>{message}</b>.",
                kind="invalid_request_error",
                code="context_length_exceeded",
                param="messages",
                headers={"x-request-id": "req-17"},
            )
            return
        left = asyncio.create_task(_until_gone(receive))
        self.running += 1
        try:
            await _start(send)
            await self._stream(kind, f"{body['model']} heard: {message}", body, send, left)
        finally:
            self.running -= 1
            self.gone += left.done() and not left.cancelled()
            left.cancel()

    async def _stream(
        self, kind: str, answer: str, body: dict[str, Any], send: Send, left: asyncio.Task[None]
    ) -> None:
        words = [] if kind == "nothing" else _words(answer)
        count = 0
        while kind == "slow" and not left.done():
            await _event(send, _chunk(f"{count} ", body))
            count += 1
            self.tokens += 1
            await asyncio.sleep(0.02)
        if kind == "slow":
            return
        for word in words[:2] if kind in ("break", "cut") else words:
            await _event(send, _chunk(word, body))
            count += 1
            await asyncio.sleep(0.005)
        self.tokens += count
        if kind == "break":
            await _event(send, error_body("engine died.", kind="server_error", code="engine_dead"))
        elif kind != "cut" and not left.done():
            await _event(send, _chunk("", body, finish="stop"))
            usage = {"prompt_tokens": 7, "completion_tokens": count + 1, "total_tokens": count + 8}
            await _event(send, {"choices": [], "model": body["model"], "usage": usage})
            await send(
                {"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": True}
            )
        await send({"type": "http.response.body", "body": b""})


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """The app on a free port of this machine, as long as the block lasts; its root URL."""
    with listen("127.0.0.1", 0) as listening:
        config = uvicorn.Config(app, lifespan="off", log_level="error", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: server.run([listening]), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield address_of(listening)
        finally:
            server.should_exit = True
            thread.join(10)


def _words(text: str) -> list[str]:
    words = text.split(" ")
    return [word + " " for word in words[:-1]] + words[-1:]


def _chunk(text: str, body: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    if body.get("logprobs"):
        choice["logprobs"] = {"content": [_logprob(text or "<|im_end|>")]}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": body["model"],
        "choices": [choice],
    }


def _logprob(text: str) -> dict[str, Any]:
    """A token that was less probable the longer it is, and two others."""
    chances = {text: max(0.02, 1 - 0.12 * len(text)), "other": 0.013, "third\n": 0.007}
    entries = [
        {"token": token, "logprob": math.log(chance), "bytes": list(token.encode())}
        for token, chance in chances.items()
    ]
    return {**entries[0], "top_logprobs": entries}


async def _start(send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _event(send: Send, event: dict[str, Any]) -> None:
    data = f"data: {json.dumps(event)}\n\n".encode()
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
