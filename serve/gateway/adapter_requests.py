"""Requests to adapters: pinned to a version as they come in, and counted until they are done."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.adapters.names import Version
from serve.adapters.registry import AdapterRegistry
from serve.gateway.authenticate import send_model_hidden
from serve.gateway.body import with_body
from serve.gateway.errors import send_error
from serve.gateway.exchange import exchange_of
from serve.gateway.in_flight import Cut, InFlight

_SECONDS_TO_END = 5.0
"""How long requests may take to end once they were told to."""


class AdapterRequests:
    """Puts the version in place of an alias; refuses what is not served or not any more.

    The body was parsed and checked by `CheckBody`. From here on the request is of that version:
    a change of the alias does not reach it, and `drain` waits for it.
    """

    def __init__(self, app: ASGIApp, registry: AdapterRegistry, drain_seconds: float) -> None:
        self._app = app
        self._registry = registry
        self._drain_seconds = drain_seconds
        self._of_version: dict[Version, InFlight] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to the version that it means."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        exchange = exchange_of(scope)
        body = exchange.body or {}
        name = body.get("model")
        # From here to `InFlight` nothing waits, so no unloading comes between.
        version = self._registry.resolve(name) if isinstance(name, str) else None
        if version is not None:
            if name != str(version):
                exchange.body = body | {"model": str(version)}
                await receive()  # the body as `CheckBody` gives it: in one piece, and at once
                scope, receive = with_body(scope, exchange.body, receive)
            exchange.model = str(version)
            await self._requests_of(version)(scope, receive, send)
        elif not isinstance(name, str) or name in self._registry.room.taken:
            if name in self._registry.room.base_names:
                exchange.model = self._registry.room.base
            await self._app(scope, receive, send)
        else:
            exchange.rejected = "model_not_found"
            if exchange.key is not None and exchange.key.models is not None:
                await send_model_hidden(send, exchange.key)
            else:
                await _send_not_found(send, name, self._registry)

    def under_way(self, version: Version) -> int:
        """How many requests of a version are not answered yet."""
        requests = self._of_version.get(version)
        return len(requests) if requests is not None else 0

    async def drain(self, version: Version) -> int:
        """Wait for a version's requests, end those that take too long, and count these."""
        requests = self._of_version.get(version)
        if requests is None:
            return 0
        try:
            await asyncio.wait_for(requests.wait_until_none(), self._drain_seconds)
            ended = 0
        except TimeoutError:
            ended = len(requests)
            message = f"the adapter {version} was unloaded before the answer was complete."
            requests.cut_all(Cut(503, "adapter_unloaded", message))
            # One that hangs is the engine's to end: it is asked to let go of the adapter next.
            with suppress(TimeoutError):
                await asyncio.wait_for(requests.wait_until_none(), _SECONDS_TO_END)
        del self._of_version[version]
        return ended

    def _requests_of(self, version: Version) -> InFlight:
        requests = self._of_version.get(version)
        if requests is None:
            requests = InFlight(self._app)
            self._of_version[version] = requests
        return requests


async def _send_not_found(send: Send, name: str, registry: AdapterRegistry) -> None:
    served = [registry.room.base, *registry.names()]
    await send_error(
        send,
        404,
        f"the model {name[:80]!r} does not exist. Served: {', '.join(served)}.",
        kind="invalid_request_error",
        code="model_not_found",
        param="model",
    )
