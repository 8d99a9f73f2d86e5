"""Tokens as the engine counts them, taken where it hands them out: no answer is parsed.

vLLM tells a stream's usage only to clients that ask for it, and tells nothing of a stream that
breaks off. Its engine client yields every step's token ids, though, so they are counted there and
written into the exchange of the request that they belong to. A context variable says which one
that is: whatever tasks vLLM starts for a request inherit it.

Of an answer that isn't streamed it yields nothing before the end. So where a client leaves, or a
request is cut, the engine is told to end the generation first: what it then yields are the tokens
that it has made until there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.gateway.exchange import Exchange, exchange_of

_NUMBERS = count()
_SECONDS_TO_END = 1.0
"""How long a generation may take to end once the engine was told to end it."""


@dataclass(frozen=True)
class _Asking:
    """A request, and what the engine generates for it."""

    exchange: Exchange
    generating: set[str] = field(default_factory=set)
    """vLLM's ids of the generations that have not ended."""
    none_left: asyncio.Event = field(default_factory=asyncio.Event)

    def begins(self, request_id: str) -> None:
        self.generating.add(request_id)
        self.none_left.clear()

    def ends(self, request_id: str) -> None:
        self.generating.discard(request_id)
        if not self.generating:
            self.none_left.set()


_ASKING: ContextVar[_Asking | None] = ContextVar("llmkit_asking", default=None)

Generate = Callable[..., AsyncGenerator[Any, None]]
"""``AsyncLLM.generate`` or ``.encode``: the prompt first, then outputs with token ids."""

Abort = Callable[[list[str]], Awaitable[None]]
"""``AsyncLLM.abort``: ends generations, which yield what they have made."""


class EngineTokens:
    """Says, around vLLM's app, whose tokens the engine counts; settles on vLLM's own usage."""

    def __init__(self, app: ASGIApp, abort: Abort) -> None:
        self._app = app
        self._abort = abort

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        exchange = exchange_of(scope)
        state = scope.setdefault("state", {})
        asking, over = _Asking(exchange), False

        async def receive_at_last() -> Message:
            nonlocal over
            message = await receive()
            if message["type"] == "http.disconnect":
                over = True
                await self._end(asking)  # before vLLM hears of it and drops what is not streamed
            return message

        async def send_before(message: Message) -> None:
            # What vLLM makes of a generation that was ended, such as an error, is no one's answer.
            if not over:
                await send(message)

        outer = _ASKING.set(asking)
        try:
            await self._app(scope, receive_at_last, send_before)
        finally:
            _ASKING.reset(outer)
            over = True
            # vLLM goes on with an answer that isn't streamed where its handler is cancelled.
            await self._end(asking)
            # What vLLM tells clients. It differs from the tokens computed in beam search only,
            # where every step of every beam is a generation of its own.
            usage = getattr(state.get("request_metadata"), "final_usage_info", None)
            if usage is not None:
                exchange.prompt_tokens = usage.prompt_tokens
                exchange.completion_tokens = usage.completion_tokens or 0

    async def _end(self, asking: _Asking) -> None:
        """End the generations that have not ended, so that their tokens are counted."""
        if asking.generating:
            await self._abort(list(asking.generating))
            with suppress(TimeoutError):
                await asyncio.wait_for(asking.none_left.wait(), _SECONDS_TO_END)


def counted(generate: Generate) -> Generate:
    """``generate`` with its tokens counted for, and at the priority of, its request's exchange."""

    async def generate_and_count(prompt: Any, *args: Any, **kwargs: Any) -> AsyncGenerator[Any]:
        asking = _ASKING.get()
        if asking is None:
            async with aclosing(generate(prompt, *args, **kwargs)) as outputs:
                async for output in outputs:
                    yield output
            return
        exchange = asking.exchange
        # The gateway's word, whatever a client wrote into vLLM's header or field for it.
        if exchange.priority or "priority" in kwargs:
            kwargs["priority"] = exchange.priority
        args, kwargs, request_id = _with_own_id(args, kwargs)
        asking.begins(request_id)
        try:
            # Closing on the way out matters: it is how vLLM learns that a client left.
            async with aclosing(generate(prompt, *args, **kwargs)) as outputs:
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
        finally:
            asking.ends(request_id)

    return generate_and_count


def _with_own_id(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], str]:
    """The arguments after the prompt with a name for the generation that no other has.

    vLLM names it after the client's ``x-request-id``, and aborts all that are named alike.
    """
    if "request_id" in kwargs:
        request_id = f"{kwargs['request_id']}-{next(_NUMBERS)}"
        return args, {**kwargs, "request_id": request_id}, request_id
    params, given, *more = args
    request_id = f"{given}-{next(_NUMBERS)}"
    return (params, request_id, *more), kwargs, request_id


def _token_ids(prompt: Any) -> Sequence[int]:
    """A rendered prompt's tokens; none where vLLM is still to make them."""
    return (prompt.get("prompt_token_ids") or ()) if isinstance(prompt, dict) else ()
