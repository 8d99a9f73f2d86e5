"""How many tokens a request's prompt has, as the engine itself would say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope

from serve.gateway.exchange import Exchange, exchange_of, with_exchange

_PATH = "/tokenize"
_OF_CHAT = (
    "model",
    "messages",
    "tools",
    "add_generation_prompt",
    "add_special_tokens",
    "continue_final_message",
)


async def prompt_tokens(app: ASGIApp, scope: Scope, longest: int) -> int | None:
    """The prompt's tokens; None where that cannot be told before the engine has seen it.

    Args:
        app: answers ``/tokenize``.
        scope: of the request, whose exchange has the body.
        longest: what the engine cuts each of its prompts to.
    """
    exchange = exchange_of(scope)
    counts = []
    for part in _parts(exchange.route or scope["path"], exchange.body or {}):
        count = part if isinstance(part, int) else await _tokenized(app, scope, part)
        if count is None:
            return None
        counts.append(min(count, longest))
    return sum(counts) if counts else None


def _parts(route: str, body: Mapping[str, Any]) -> Sequence[int | Mapping[str, Any]]:
    """What to add up: counts that are plain to see, and bodies for ``/tokenize``."""
    if route == "/v1/chat/completions":
        asked = {name: body[name] for name in _OF_CHAT if name in body}
        variables = _template_variables(body)
        return [asked | {"chat_template_kwargs": variables} if variables else asked]
    prompt = body.get("prompt") if route == "/v1/completions" else None
    prompt = body.get("input") if route == "/v1/embeddings" else prompt
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], int):
        return [len(prompt)]
    prompts = prompt if isinstance(prompt, list) else [prompt]
    special = {"add_special_tokens": body.get("add_special_tokens", True)}
    parts: list[int | Mapping[str, Any]] = []
    for one in prompts:
        if isinstance(one, str):
            parts.append({"model": body.get("model"), "prompt": one, **special})
        elif isinstance(one, list):
            parts.append(len(one))
        else:
            return []
    return parts


def _template_variables(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """What vLLM hands a chat template of a request's fields that ``/tokenize`` does not have."""
    variables: dict[str, Any] = {}
    if (documents := body.get("documents")) is not None:
        variables["documents"] = documents
    if (effort := body.get("reasoning_effort")) is not None:
        variables |= {"reasoning_effort": effort, "enable_thinking": effort != "none"}
    return variables


async def _tokenized(app: ASGIApp, scope: Scope, body: Mapping[str, Any]) -> int | None:
    """What ``/tokenize`` counts."""
    content = json.dumps(body).encode()
    outer = exchange_of(scope)
    exchange = Exchange(route=_PATH, key=outer.key, body=dict(body), model=outer.model)
    inner = {
        **with_exchange(scope, exchange),
        "path": _PATH,
        "raw_path": _PATH.encode(),
        "headers": [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
        ],
        "state": dict(scope.get("state", {})),
    }
    status, answer = 0, bytearray()

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            answer.extend(message.get("body", b""))

    await app(inner, _once(content), send)
    if status != 200:
        return None  # the engine will say what is wrong with the request
    count = json.loads(answer).get("count")
    return count if isinstance(count, int) else None


def _once(content: bytes) -> Receive:
    """Gives a body, and then the silence of a client that waits."""
    messages = [{"type": "http.request", "body": content, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()
        raise AssertionError("no one sets it")

    return receive
