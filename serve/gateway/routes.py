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
    "/v1/adapters": ("GET", "POST"),
    "/v1/adapters/{name}": ("DELETE",),
    "/v1/adapters/{name}/alias": ("POST",),
    "/v1/adapters/{name}/rollback": ("POST",),
    "/v1/files": ("GET", "POST"),
    "/v1/files/{file}": ("GET", "DELETE"),
    "/v1/files/{file}/content": ("GET",),
    "/v1/batches": ("GET", "POST"),
    "/v1/batches/{batch}": ("GET",),
    "/v1/batches/{batch}/cancel": ("POST",),
    "/tokenize": ("POST",),
    "/detokenize": ("POST",),
    "/openapi.json": ("GET",),
    "/v1/usage": ("GET",),
    "/metrics": ("GET",),
    "/health": _READ,
    "/ready": _READ,
}
"""Methods by path; what varies in one is in braces. Only ``{id}`` may hold a slash."""


class AllowList:
    """Passes the requests in `ROUTES` on; answers 404 or 405 to every other."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "websocket":
            # Closing before accepting is ASGI's way of refusing the handshake (403).
            await send({"type": "websocket.close", "code": 1008})
            return
        path, method, exchange = scope["path"], scope["method"], exchange_of(scope)
        route = route_of(path)
        allowed = ROUTES[route] if route else ()
        if route is None:
            exchange.rejected = "unknown_url"
            await send_error(
                send,
                404,
                f"unknown URL: {method} {path[:200]}. Offered: {', '.join(ROUTES)}.",
                kind="invalid_request_error",
                code="unknown_url",
            )
        elif method not in allowed:
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
            exchange.route = route
            await self._app(scope, receive, send)


def route_of(path: str) -> str | None:
    """The entry of `ROUTES` that a path is of; None if it is not offered."""
    if path in ROUTES:
        return path
    return next((route for route, pattern in _VARYING.items() if pattern.fullmatch(path)), None)


def _pattern(route: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", route)
    return re.compile(
        "".join(
            re.escape(part) if i % 2 == 0 else ("(?s:.+)" if part == "id" else "[^/]+")
            for i, part in enumerate(parts)
        )
    )


_VARYING = {route: _pattern(route) for route in ROUTES if "{" in route}
