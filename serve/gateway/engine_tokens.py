"""Tokens as the engine counts them, taken where it hands them out: no answer is parsed.

vLLM tells a stream's usage only to clients that ask for it, and tells nothing of a stream that
breaks off. Its engine client yields every step's token ids, though, so they are counted there and
written into the exchange of the request that they belong to. A context variable says which one
that is: whatever tasks vLLM starts for a request inherit it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.gateway.exchange import Exchange, exchange_of

_ASKING: ContextVar[Exchange | None] = ContextVar("llmkit_exchange", default=None)

Generate = Callable[..., AsyncGenerator[Any, None]]
"""``AsyncLLM.generate`` or ``.encode``: the prompt first, then outputs with token ids."""


class EngineTokens:
    """Says, around vLLM's app, whose tokens the engine counts; settles on vLLM's own usage."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        exchange = exchange_of(scope)
        state = scope.setdefault("state", {})
        outer = _ASKING.set(exchange)
        try:
            await self._app(scope, receive, send)
        finally:
            _ASKING.reset(outer)
            # What vLLM tells clients. It differs from the tokens computed in beam search only,
            # where every step of every beam is a generation of its own.
            usage = getattr(state.get("request_metadata"), "final_usage_info", None)
            if usage is not None:
                exchange.prompt_tokens = usage.prompt_tokens
                exchange.completion_tokens = usage.completion_tokens or 0


def counted(generate: Generate) -> Generate:
    """``generate`` with its tokens counted for, and at the priority of, its request's exchange."""

    async def generate_and_count(prompt: Any, *args: Any, **kwargs: Any) -> AsyncGenerator[Any]:
        exchange = _ASKING.get()
        # The gateway's word, whatever a client wrote into vLLM's header or field for it.
        if exchange is not None and (exchange.priority or "priority" in kwargs):
            kwargs["priority"] = exchange.priority
        # Closing on the way out matters: it is how vLLM learns that a client left.
        async with aclosing(generate(prompt, *args, **kwargs)) as outputs:
            if exchange is None:
                async for output in outputs:
                    yield output
                return
            # Before the first output, so that a request that never gets one is counted too.
            known = len(_token_ids(prompt))
            exchange.prompt_tokens += known
            async for output in outputs:
                if not known and output.prompt_token_ids:
                    known = len(output.prompt_token_ids)
                    exchange.prompt_tokens += known
                outputs_of_n = getattr(output, "outputs", ())
                if isinstance(outputs_of_n, list):  # generated; of an embedding, one object
                    for one in outputs_of_n:
                        exchange.completion_tokens += len(one.token_ids)
                yield output

    return generate_and_count


def _token_ids(prompt: Any) -> Sequence[int]:
    """A rendered prompt's tokens; none where vLLM is still to make them."""
    return (prompt.get("prompt_token_ids") or ()) if isinstance(prompt, dict) else ()
