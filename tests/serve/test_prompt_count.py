"""Counting a prompt's tokens through ``/tokenize``, for each kind of request."""

import asyncio
import json
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from serve.gateway.errors import send_error, send_json
from serve.gateway.exchange import Exchange, exchange_of, with_exchange
from serve.gateway.prompt_count import prompt_tokens

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"


class Tokenizer:
    """Counts a token for each letter, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["path"] == "/tokenize"
        exchange_of(scope).prompt_tokens = 99  # of the inner request, not of the outer one
        body = json.loads((await receive())["body"])
        self.asked.append(body)
        if body["model"] == "unknown":
            await send_error(send, 404, "no", kind="k", code="c")
            return
        text = body.get("prompt") or body["messages"][0]["content"]
        await send_json(send, 200, {"count": len(text)})


def count(
    route: str, body: dict[str, Any], cut: int = 512
) -> tuple[int | None, Exchange, list[Any]]:
    tokenizer, exchange = Tokenizer(), Exchange(route=route, body={"model": "m", **body})
    scope: Scope = {"type": "http", "method": "POST", "path": route, "headers": []}
    counted = asyncio.run(prompt_tokens(tokenizer, with_exchange(scope, exchange), cut))
    return counted, exchange, tokenizer.asked


@pytest.mark.parametrize(
    ("route", "body", "tokens"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "abc"}]}, 3),
        (COMPLETIONS, {"prompt": "abcd"}, 4),
        (COMPLETIONS, {"prompt": ["ab", "c"]}, 3),
        (COMPLETIONS, {"prompt": [5, 6, 7]}, 3),
        (COMPLETIONS, {"prompt": [[5, 6], [7]]}, 3),
        (EMBEDDINGS, {"input": ["ab", "c"]}, 3),
    ],
)
def test_every_kind_of_prompt_is_counted(route: str, body: dict[str, Any], tokens: int) -> None:
    counted, exchange, _ = count(route, body)
    assert counted == tokens
    assert exchange.prompt_tokens == 0


@pytest.mark.parametrize(
    ("route", "body"),
    [(COMPLETIONS, {"prompt": ["abcd", "c"]}), (EMBEDDINGS, {"input": [[5, 6, 7], [8]]})],
)
def test_each_prompt_counts_as_far_as_it_is_not_cut(route: str, body: dict[str, Any]) -> None:
    assert count(route, body, 2)[0] == 3


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/v1/responses", {"input": "abc"}),
        (COMPLETIONS, {"prompt": None}),
        (COMPLETIONS, {}),
        (COMPLETIONS, {"prompt": "abc", "model": "unknown"}),
    ],
)
def test_what_cannot_be_counted_is_not(route: str, body: dict[str, Any]) -> None:
    assert count(route, body)[0] is None


def test_what_goes_into_the_prompt_goes_to_the_tokenizer() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    messages = [{"role": "user", "content": "abc"}]
    _, _, asked = count(CHAT, {"messages": messages, "tools": tools, "temperature": 0})
    assert asked == [{"model": "m", "messages": messages, "tools": tools}]
    _, _, asked = count(CHAT, {"messages": messages, "add_special_tokens": True})
    assert asked[0]["add_special_tokens"] is True
    _, _, asked = count(COMPLETIONS, {"prompt": "abc", "add_special_tokens": False})
    assert asked[0]["add_special_tokens"] is False


def test_what_only_chat_requests_have_goes_to_the_template_as_its_variables() -> None:
    messages, documents = [{"role": "user", "content": "abc"}], [{"title": "t", "text": "x"}]
    body = {"messages": messages, "documents": documents, "reasoning_effort": "none"}
    _, _, asked = count(CHAT, body)
    assert asked[0]["chat_template_kwargs"] == {
        "documents": documents,
        "reasoning_effort": "none",
        "enable_thinking": False,
    }
