"""Parses each request's body once, and refuses what must not reach the engine."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.gateway.authenticate import send_model_hidden
from serve.gateway.backpressure import send_overloaded
from serve.gateway.body import ClientLeft, Replay, is_json, read_body, with_body
from serve.gateway.body_memory import BodiesFull, BodyMemory, Share, parsed_size
from serve.gateway.errors import send_error
from serve.gateway.exchange import exchange_of
from serve.requests.bounds import Bounds
from serve.requests.checks import CHECKED, check_request
from serve.requests.limits import Engine
from serve.requests.refusal import RequestRefused
from serve.settings import ServeSettings

_CLOSE = {"connection": "close"}
"""Sent where the rest of a body was not read: it would be taken for the next request."""


class CheckBody:
    """Fills the exchange's body and model, or answers with 4xx.

    Routes of ours with JSON bodies (batches, adapters) check their own fields; here their
    bodies are only bounded and parsed. Bodies that are no JSON, such as files that are
    uploaded, are left to their routes, which bound them.
    """

    def __init__(self, app: ASGIApp, bounds: Bounds, settings: ServeSettings) -> None:
        self._app = app
        self._engine = Engine(bounds, settings)
        self._largest = settings.max_body_bytes
        self._memory = BodyMemory(max(settings.max_bodies_bytes, self._largest))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body, or refuse it."""
        if scope["method"] != "POST" or not (is_json(scope) or scope["path"] in CHECKED):
            await self._app(scope, receive, send)
            return
        share = self._memory.share()
        try:
            await self._with_body(scope, receive, send, share)
        finally:
            share.give_back()

    async def _with_body(self, scope: Scope, receive: Receive, send: Send, share: Share) -> None:
        try:
            checked, replay = await self._checked(scope, receive, share)
        except ClientLeft:
            return
        except BodiesFull:
            await send_overloaded(
                exchange_of(scope),
                send,
                429,
                f"the requests under way have bodies of {self._memory.most} bytes together.",
                headers=_CLOSE,
            )
            return
        except RequestRefused as refused:
            exchange = exchange_of(scope)
            exchange.rejected = refused.code
            key = exchange.key
            if refused.code == "model_not_found" and key is not None and key.models is not None:
                # The refusal names the models that are served; this key may not use them all.
                await send_model_hidden(send, key)
                return
            await send_error(
                send,
                refused.status,
                refused.message,
                kind=refused.kind,
                code=refused.code,
                param=refused.param,
                headers=_CLOSE if refused.status in (413, 415) else None,
            )
            return
        await self._app(checked, replay, send)

    async def _checked(self, scope: Scope, receive: Receive, share: Share) -> tuple[Scope, Replay]:
        if not is_json(scope):
            raise RequestRefused(
                "the body must be JSON, uncompressed; send Content-Type: application/json.",
                code="unsupported_media_type",
                status=415,
            )
        raw = await read_body(scope, receive, self._largest, share)
        share.take(parsed_size(raw))
        exchange, route = exchange_of(scope), scope["path"]
        if route not in CHECKED:
            exchange.body = _object(raw) if raw else None
            return scope, Replay(raw, receive)
        body = _object(raw)
        amended = check_request(route, body, self._engine)
        exchange.body = body if amended is None else amended
        exchange.model = body["model"]
        if amended is None:
            return scope, Replay(raw, receive)
        return with_body(scope, amended, receive)


def _object(raw: bytes) -> dict[str, Any]:
    try:
        # Stricter than Python's json, which vLLM uses: no NaN, no lone surrogates, no other
        # encoding than UTF-8, no deep nesting. What passes here means the same to both.
        body = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise RequestRefused(f"the body is not JSON: {error}.", code="invalid_json") from None
    if not isinstance(body, dict):
        raise RequestRefused("the body must be a JSON object.", code="invalid_json")
    return body
