"""Who asks: the key of each request, and whether it may call this route and this model."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.gateway.errors import send_error
from serve.gateway.exchange import Exchange, exchange_of
from serve.keys.key import Key
from serve.keys.known import Unfit
from serve.keys.opening import Keys
from serve.listening import is_loopback
from serve.requests.checks import CHECKED

_PROBLEMS = {
    Unfit.UNKNOWN: "the API key is not one of this server's. Ask whoever runs it for a key.",
    Unfit.REVOKED: "the API key was revoked. Ask whoever runs this server for a new one.",
    Unfit.EXPIRED: "the API key has expired. Ask whoever runs this server for a new one.",
}
_MISSING = "no API key was sent. Send it in a header: Authorization: Bearer sk-llmkit-..."
_OUTDATED = "the keys' database does not answer, so no key can be checked. Try again in a moment."

ADMIN_ROUTES = ("/metrics", "/v1/adapters", "/v1/adapters/*")
"""Routes for admin keys, as patterns. Another key may call one that its own routes name, but for
adapters: those `AdaptersRoute` leaves to admins in any case."""


class Authenticate:
    """Finds the key of a request; 401 without one that holds, 403 where it may not call."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its key, or refuse it."""
        exchange = exchange_of(scope)
        if not self._keys.required:
            host = _header(scope, b"host")
            if _is_of_this_machine(host):
                await self._app(scope, receive, send)
            else:
                await _refuse_host(exchange, send, host)
            return
        known = self._keys.known
        presented = _bearer(scope)
        if known is not None and known.outdated:
            exchange.rejected = "keys_unavailable"
            await send_error(
                send,
                503,
                _OUTDATED,
                kind="server_error",
                code="keys_unavailable",
                headers={"retry-after": "5"},
            )
            return
        found = known.find(presented) if known is not None and presented else Unfit.UNKNOWN
        if isinstance(found, Unfit):
            await _unauthorised(exchange, send, _PROBLEMS[found] if presented else _MISSING)
        elif not may_call(found, exchange.route or scope["path"]):
            await _forbidden(exchange, send, found, scope["path"])
        else:
            exchange.key = found
            await self._app(scope, receive, send)


class AllowedModel:
    """Answers 404 where a request names a model that its key may not use."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        exchange = exchange_of(scope)
        key = exchange.key
        if key is None or key.models is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        model = exchange.model
        if (exchange.route or scope["path"]) not in CHECKED or (
            model is not None and key.allows_model(model)
        ):
            await self._app(scope, receive, send)
            return
        exchange.rejected = "model_not_found"
        await send_model_hidden(send, key)


async def send_model_hidden(send: Send, key: Key) -> None:
    """As OpenAI: who may not use a model is not told whether there is one, nor which there are."""
    await send_error(
        send,
        404,
        "the model does not exist or this API key may not use it. It may use: "
        f"{', '.join(key.models or ('*',))}.",
        kind="invalid_request_error",
        code="model_not_found",
        param="model",
    )


def _bearer(scope: Scope) -> str:
    """The key in the request's headers; empty without one."""
    scheme, _, text = _header(scope, b"authorization").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else ""


def _header(scope: Scope, wanted: bytes) -> str:
    """A header's value; empty without it."""
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), "")


def _is_of_this_machine(host: str) -> bool:
    """Whether a Host header has no name that a stranger can register and point to this machine.

    A web page of such a name could ask an open server whatever it likes (DNS rebinding).
    """
    name = _PORT.sub("", host).strip("[]").lower()
    single = not re.search(r"[.:]", name.removesuffix(".localhost"))
    return single or is_loopback(name)


_PORT = re.compile(r":\d+$")


def may_call(key: Key, route: str) -> bool:
    """Whether a key may ask for a route."""
    if key.routes is not None:
        return any(fnmatchcase(route, pattern) for pattern in key.routes)
    return key.admin or not any(fnmatchcase(route, pattern) for pattern in ADMIN_ROUTES)


async def _refuse_host(exchange: Exchange, send: Send, host: str) -> None:
    exchange.rejected = "host_not_allowed"
    await send_error(
        send,
        403,
        f"while no key was made, this server answers to names of this machine only, and "
        f"{host[:80]!r} is none. Ask for http://localhost, or make a key: llmkit keys create NAME",
        kind="permission_error",
        code="host_not_allowed",
    )


async def _unauthorised(exchange: Exchange, send: Send, message: str) -> None:
    exchange.rejected = "invalid_api_key"
    await send_error(
        send,
        401,
        message,
        kind="authentication_error",
        code="invalid_api_key",
        headers={"www-authenticate": "Bearer"},
    )


async def _forbidden(exchange: Exchange, send: Send, key: Key, path: str) -> None:
    exchange.key = key
    exchange.rejected = "permission_denied"
    may = ", ".join(key.routes) if key.routes is not None else "the routes that need no admin key"
    await send_error(
        send,
        403,
        f"the API key {key.id} ({key.name}) may not call {path}. It may call: {may}.",
        kind="permission_error",
        code="permission_denied",
    )
