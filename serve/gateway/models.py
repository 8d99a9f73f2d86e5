"""The models list, in OpenAI's fields. vLLM's own adds the model's path on the disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.gateway.errors import send_error, send_json
from serve.gateway.exchange import exchange_of


@dataclass(frozen=True)
class ModelCard:
    """A model or adapter that requests may name."""

    id: str
    """The name."""

    created: int
    """When it was loaded, in seconds since 1970."""

    max_model_len: int
    """Longest prompt plus answer, in tokens."""

    parent: str | None = None
    """The model below it, if it is an adapter."""

    def body(self) -> dict[str, Any]:
        """OpenAI's fields, and the two of vLLM's that clients can use."""
        return {
            "id": self.id,
            "object": "model",
            "created": self.created,
            "owned_by": "llmkit",
            "parent": self.parent,
            "max_model_len": self.max_model_len,
        }


class ModelsRoute:
    """Answers ``/v1/models`` and ``/v1/models/{id}``; passes every other request on.

    A key that may not use every model sees those that it may use.
    """

    def __init__(self, app: ASGIApp, cards: Callable[[], Sequence[ModelCard]]) -> None:
        self._app = app
        self._cards = cards

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        path = scope["path"]
        if path == "/v1/models":
            bodies = [card.body() for card in self._visible(scope)]
            await send_json(send, 200, {"object": "list", "data": bodies})
        elif path.startswith("/v1/models/"):
            # Names may hold a slash ("org/name"), plain or escaped twice by a cautious client.
            name = unquote(path.removeprefix("/v1/models/"))
            await self._one(name, scope, send)
        else:
            await self._app(scope, receive, send)

    def _visible(self, scope: Scope) -> Sequence[ModelCard]:
        key = exchange_of(scope).key
        return [card for card in self._cards() if key is None or key.allows_model(card.id)]

    async def _one(self, name: str, scope: Scope, send: Send) -> None:
        cards = self._visible(scope)
        for card in cards:
            if card.id == name:
                await send_json(send, 200, card.body())
                return
        exchange_of(scope).rejected = "model_not_found"
        await send_error(
            send,
            404,
            f"the model {name!r} does not exist. Served: {', '.join(c.id for c in cards)}.",
            kind="invalid_request_error",
            code="model_not_found",
            param="model",
        )
