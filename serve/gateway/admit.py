"""Limits of keys: 429 past them, and what each request used is charged to its key.

Reference:
    https://platform.openai.com/docs/guides/rate-limits for the headers
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.gateway.errors import send_error
from serve.gateway.exchange import Exchange, exchange_of
from serve.gateway.prompt_count import prompt_tokens
from serve.gateway.token_ask import Estimate, estimate, prompt_cut
from serve.keys.key import Key, Limits
from serve.keys.limiter import Limiter, LimitsUnavailable, Verdict
from serve.keys.opening import Keys
from serve.keys.window import Ask, Refused
from serve.requests.bounds import Bounds

_UNLIMITED = Limits()
_UNAVAILABLE = (
    "the database of limits does not answer, so it is not known what this API key has left. "
    "Try again in a moment."
)


class Admit:
    """Lets a key's requests through within its limits, and counts what they use.

    Requests that only read (GET) are free. A request is charged for what the engine did for
    it, whether or not its client stayed to the end.
    """

    def __init__(self, app: ASGIApp, keys: Keys, bounds: Bounds) -> None:
        self._app = app
        self._keys = keys
        self._longest = bounds.max_model_len

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        exchange = exchange_of(scope)
        key, limiter = exchange.key, self._keys.limiter
        if key is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
        elif key.limits == _UNLIMITED or limiter is None:
            try:
                await self._app(scope, receive, send)
            finally:
                self._record(exchange, key)
        else:
            await self._limited(exchange, key, limiter, scope, receive, send)

    async def _limited(
        self,
        exchange: Exchange,
        key: Key,
        limiter: Limiter,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        try:
            ask, verdict = await self._judge(exchange, key, limiter, scope)
        except LimitsUnavailable:
            exchange.rejected = "limits_unavailable"
            await send_error(
                send,
                503,
                _UNAVAILABLE,
                kind="server_error",
                code="limits_unavailable",
                headers={"retry-after": "5"},
            )
            return
        if isinstance(verdict.result, Refused):
            await _refuse(exchange, key, ask, verdict, verdict.result, send)
            return
        headers = [(name.encode(), value.encode()) for name, value in rate_headers(verdict)]

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        finally:
            if _came_to_nothing(exchange):
                limiter.take_back(key, verdict.result)
            else:
                used = exchange.prompt_tokens + exchange.completion_tokens
                limiter.settle(key, verdict.result, used)
            self._record(exchange, key)

    async def _judge(
        self, exchange: Exchange, key: Key, limiter: Limiter, scope: Scope
    ) -> tuple[Ask, Verdict]:
        """Ask the limiter; where it depends on the prompt's length, with the tokens counted."""
        expected = self._expected(exchange, key.limits, scope)
        ask, answers = expected.ask, expected.answers
        verdict = await limiter.admit(key, ask)
        admitted = verdict.result
        if isinstance(admitted, Refused) or answers is None or admitted.held >= ask.most:
            return ask, verdict
        fits = False
        try:
            cut = prompt_cut(exchange.body or {}, self._longest)
            prompt = await prompt_tokens(self._app, scope, cut)
            fits = prompt is None or prompt + answers <= admitted.held
        finally:
            if not fits:
                limiter.take_back(key, admitted)
        if fits or prompt is None:
            return ask, verdict
        ask = Ask(prompt + answers, prompt + answers)
        return ask, await limiter.admit(key, ask)

    def _expected(self, exchange: Exchange, limits: Limits, scope: Scope) -> Estimate:
        if limits.tokens_per_minute is None and limits.tokens_per_month is None:
            return Estimate(Ask())
        return estimate(exchange.route or scope["path"], exchange.body or {}, self._longest)

    def _record(self, exchange: Exchange, key: Key) -> None:
        if _came_to_nothing(exchange):
            return
        if self._keys.usage is not None and exchange.model is not None:
            self._keys.usage.add(
                key.id, exchange.model, exchange.prompt_tokens, exchange.completion_tokens
            )


def _came_to_nothing(exchange: Exchange) -> bool:
    """Whether the gateway refused a request, or cut it, before the engine had it."""
    return exchange.rejected is not None and not exchange.prompt_tokens


def rate_headers(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """OpenAI's headers about the limits that the key has."""
    for what, left in (("requests", verdict.requests), ("tokens", verdict.tokens)):
        if left is not None:
            yield f"x-ratelimit-limit-{what}", str(left.limit)
            yield f"x-ratelimit-remaining-{what}", str(left.remaining)
            yield f"x-ratelimit-reset-{what}", _duration(left.reset)


async def _refuse(
    exchange: Exchange, key: Key, ask: Ask, verdict: Verdict, refused: Refused, send: Send
) -> None:
    lasting = refused.wait is None or refused.used_up
    month = refused.limit == "month"
    code = "insufficient_quota" if month and lasting else "rate_limit_exceeded"
    exchange.rejected = code
    headers = dict(rate_headers(verdict))
    if refused.wait is not None:
        headers["retry-after"] = str(max(1, math.ceil(refused.wait)))
    if lasting:
        # Told to OpenAI's clients, which would try again of themselves.
        headers["x-should-retry"] = "false"
    await send_error(
        send,
        429,
        _explained(key, ask, refused),
        kind="rate_limit_error",
        code=code,
        headers=headers,
    )


def _explained(key: Key, ask: Ask, refused: Refused) -> str:
    limits = key.limits
    limit = {
        "requests": f"{limits.requests_per_minute} requests per minute",
        "tokens": f"{limits.tokens_per_minute} tokens per minute",
        "concurrent": f"{limits.concurrent_requests} requests at a time",
        "month": f"{limits.tokens_per_month} tokens per month",
    }[refused.limit]
    if refused.wait is None:
        return (
            f"this request may use {ask.least} tokens, and the API key {key.id} has {limit}. "
            "Shorten the prompt, or ask for a shorter answer (max_tokens) or fewer of them (n)."
        )
    said = f"the API key {key.id} has reached its limit of {limit}."
    if refused.used_up:
        return f"{said} It may ask again in {_duration(refused.wait)}, or with a higher limit."
    return f"{said} Try again in {_duration(refused.wait)}."


def _duration(seconds: float) -> str:
    """As OpenAI writes it: ``8.64s``, ``6m0s``, ``23h59m59s``."""
    if seconds < 60:
        return f"{seconds:.3g}s"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"
