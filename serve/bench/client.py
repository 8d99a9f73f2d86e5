"""One request sent and timed, with as little work between its chunks as can be."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import aiohttp

from serve.bench.workload import Ask


@dataclass(frozen=True)
class Target:
    """The endpoint that is measured."""

    url: str
    """Base URL, ending in ``/v1``."""

    model: str
    """The name to ask for."""

    key: str | None = None
    """Sent as a bearer token."""

    stream: bool = True
    """Whether answers are streamed. Without, there is no TTFT nor TPOT to measure."""

    ignore_eos: bool = False
    """Whether answers run to their full length (vLLM's and SGLang's own field)."""


@dataclass(frozen=True)
class Answer:
    """How one request went. Times are `time.perf_counter`'s, in seconds."""

    began: float
    ended: float
    first_token: float | None = None
    """When the first piece of text came; None without streaming."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str | None = None
    """What went wrong: an HTTP status with the error's code, or the failure's name."""

    @property
    def seconds(self) -> float:
        """From sending to the last byte."""
        return self.ended - self.began

    @property
    def ttft(self) -> float | None:
        """Time to first token, in seconds."""
        return None if self.first_token is None else self.first_token - self.began

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first, in seconds."""
        if self.first_token is None or self.completion_tokens < 2:
            return None
        return (self.ended - self.first_token) / (self.completion_tokens - 1)


def session(target: Target, seconds: float = 600) -> aiohttp.ClientSession:
    """A client with as many connections as are asked for."""
    headers = {"authorization": f"Bearer {target.key}"} if target.key else {}
    return aiohttp.ClientSession(
        headers=headers,
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=seconds),
        read_bufsize=2**20,
    )


async def ask(client: aiohttp.ClientSession, target: Target, what: Ask) -> Answer:
    """Send one request and read its answer to the end; never raises for the server's fault."""
    body: dict[str, Any] = {
        "model": what.model or target.model,
        "messages": what.messages,
        "max_tokens": what.max_tokens,
        "temperature": 0,
        "stream": target.stream,
    }
    if target.stream:
        body["stream_options"] = {"include_usage": True}
    if target.ignore_eos:
        body["ignore_eos"] = True
    began = time.perf_counter()
    try:
        async with client.post(f"{target.url}/chat/completions", json=body) as response:
            if response.status != 200:
                return _failed(began, _refusal(response.status, await response.read()))
            if target.stream:
                return await _streamed(response, began)
            return _answered(began, None, (await response.json())["usage"])
    except TimeoutError:
        return _failed(began, "timed out")
    except (aiohttp.ClientError, OSError) as error:
        return _failed(began, type(error).__name__)
    except (ValueError, LookupError, TypeError, AttributeError):
        return _failed(began, "not an answer of the API")


async def _streamed(response: aiohttp.ClientResponse, began: float) -> Answer:
    first: float | None = None
    usage: dict[str, int] | None = None
    async for line in response.content:
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        # Only what can matter is parsed: the pieces before the first text, usage, errors.
        if data.startswith(b'{"error"'):
            return _failed(began, _refusal(200, data))
        if data == b"[DONE]":
            continue
        if first is None or b'"usage":{' in data or b'"usage": {' in data:
            now = time.perf_counter()
            event = json.loads(data)
            usage = event.get("usage") or usage
            if first is None and _has_text(event):
                first = now
    if usage is None:
        return _failed(began, "the stream ended without usage")
    return _answered(began, first, usage)


_TEXT = ("content", "reasoning", "reasoning_content")
"""Where a piece of text is; thinking takes tokens too, and servers name it differently."""


def _has_text(event: dict[str, Any]) -> bool:
    deltas = [choice.get("delta") or {} for choice in event.get("choices") or []]
    return any(delta.get(name) for delta in deltas for name in _TEXT)


def _answered(began: float, first: float | None, usage: dict[str, int]) -> Answer:
    prompt, completion = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
    return Answer(began, time.perf_counter(), first, prompt, completion)


def _failed(began: float, error: str) -> Answer:
    return Answer(began, time.perf_counter(), error=error)


def _refusal(status: int, body: bytes) -> str:
    try:
        code = json.loads(body)["error"]["code"]
    except (ValueError, LookupError, TypeError):
        return f"HTTP {status}"
    return f"HTTP {status} {code}"
