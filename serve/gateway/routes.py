"""The allow-list: what the server offers, and nothing else of the many routes vLLM has."""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.gateway.errors import send_error
from serve.gateway.exchange import exchange_of

_READ = ("GET", "HEAD")

ROUTES: Mapping[str, tuple[str, ...]] = {
    "/v1/chat/completions": ("POST",),
    "/v1/completions": ("POST",),
    "/v1/responses": ("POST",),
    "/v1/embeddings": ("POST",),
    "/v1/models": ("GET",),
    "/v1/models/{id}": ("GET",),
    "/tokenize": ("POST",),
    "/detokenize": ("POST",),
    "/metrics": ("GET",),
    "/health": _READ,
    "/ready": _READ,
}
"""Methods by route. A name in braces stands for one segment of the path; at a route's end for
the rest of the path, since models' names may hold slashes."""

_EXACT = frozenset(route for route in ROUTES if "{" not in route)
_PATTERNS = [
    (re.compile(re.sub(r"\{\w+\}", "[^/]+", re.sub(r"\{\w+\}$", ".+", route))), route)
    # The longest first: /v1/files/{id}/content is no file's name.
    for route in sorted(ROUTES, key=lambda route: -route.count("/"))
    if "{" in route
]


class AllowList:
    """Passes the requests in `ROUTES` on, naming the route; answers 404 or 405 to every other."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "websocket":
            # Closing before accepting is ASGI's way of refusing the handshake (403).
            await send({"type": "websocket.close", "code": 1008})
            return
        path, method, exchange = scope["path"], scope["method"], exchange_of(scope)
        exchange.route = route = route_of(path)
        if route is None:
            exchange.rejected = "unknown_url"
            await send_error(
                send,
                404,
                f"unknown URL: {method} {path[:200]}. Offered: {', '.join(ROUTES)}.",
                kind="invalid_request_error",
                code="unknown_url",
            )
        elif method not in (allowed := ROUTES[route]):
            exchange.rejected = "method_not_allowed"
            await send_error(
                send,
                405,
                f"{route} takes {' or '.join(allowed)}, not {method}.",
                kind="invalid_request_error",
                code="method_not_allowed",
                headers={"allow": ", ".join(allowed)},
            )
        else:
            await self._app(scope, receive, send)


def route_of(path: str) -> str | None:
    """The route in `ROUTES` that a path is of; None if it is not offered."""
    if path in _EXACT:
        return path
    return next((route for pattern, route in _PATTERNS if pattern.fullmatch(path)), None)
