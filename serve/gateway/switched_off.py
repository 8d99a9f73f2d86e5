"""Routes that this server was started without."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.gateway.errors import send_error
from serve.gateway.exchange import exchange_of


class SwitchedOff:
    """Says how to have some routes; passes every other request on."""

    def __init__(self, app: ASGIApp, prefixes: tuple[str, ...], code: str, message: str) -> None:
        """Stand in for routes.

        Args:
            app: answers everything else.
            prefixes: the paths that are not there, with all below them.
            code: the error's short name.
            message: what setting they need.
        """
        self._app = app
        self._prefixes = tuple(f"{prefix}/" for prefix in prefixes)
        self._code, self._message = code, message

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if not f"{scope['path']}/".startswith(self._prefixes):
            await self._app(scope, receive, send)
            return
        exchange_of(scope).rejected = self._code
        await send_error(
            send,
            404,
            self._message,
            kind="invalid_request_error",
            code=self._code,
            headers={"connection": "close"},  # a body that is not read here is not a next request
        )
