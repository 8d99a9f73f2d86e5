"""The allow-list: what the server offers, and nothing else of the many routes vLLM has."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.gateway.errors import send_error
from serve.gateway.exchange import exchange_of

_READ = ("GET", "HEAD")

ROUTES: Mapping[str, tuple[str, ...]] = {
    "/v1/chat/completions": ("POST",),
    "/v1/completions": ("POST",),
    "/v1/models": ("GET",),
    "/tokenize": ("POST",),
    "/detokenize": ("POST",),
    "/v1/usage": ("GET",),
    "/metrics": ("GET",),
    "/health": _READ,
    "/ready": _READ,
}
"""Methods by path. A path below ``/v1/models/`` is one model and is read like the list."""


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
        path, method = scope["path"], scope["method"]
        allowed = _methods(path)
        if not allowed:
            await send_error(
                send,
                404,
                f"unknown URL: {method} {path}. Offered: {', '.join(ROUTES)}.",
                kind="invalid_request_error",
                code="unknown_url",
            )
        elif method not in allowed:
            await send_error(
                send,
                405,
                f"{path} takes {' or '.join(allowed)}, not {method}.",
                kind="invalid_request_error",
                code="method_not_allowed",
                headers={"allow": ", ".join(allowed)},
            )
        else:
            exchange_of(scope).route = _template(path)
            await self._app(scope, receive, send)


def _template(path: str) -> str:
    """The path with what varies in braces: one of few, however many paths are asked for."""
    prefix = "/v1/models/"
    return f"{prefix}{{id}}" if path.startswith(prefix) and len(path) > len(prefix) else path


def _methods(path: str) -> tuple[str, ...]:
    """Methods that a path takes; none if it is not offered."""
    template = _template(path)
    return ROUTES["/v1/models"] if template == "/v1/models/{id}" else ROUTES.get(template, ())
