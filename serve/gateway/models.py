"""The models list, in OpenAI's fields. vLLM's own adds the model's path on the disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.gateway.errors import send_error, send_json


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
    """Answers ``/v1/models`` and ``/v1/models/{id}``; passes every other request on."""

    def __init__(self, app: ASGIApp, cards: Callable[[], Sequence[ModelCard]]) -> None:
        self._app = app
        self._cards = cards

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        path = scope["path"]
        if path == "/v1/models":
            bodies = [card.body() for card in self._cards()]
            await send_json(send, 200, {"object": "list", "data": bodies})
        elif path.startswith("/v1/models/"):
            # Names may hold a slash ("org/name"), plain or escaped twice by a cautious client.
            await self._one(unquote(path.removeprefix("/v1/models/")), send)
        else:
            await self._app(scope, receive, send)

    async def _one(self, name: str, send: Send) -> None:
        cards = self._cards()
        for card in cards:
            if card.id == name:
                await send_json(send, 200, card.body())
                return
        await send_error(
            send,
            404,
            f"the model {name!r} does not exist. Served: {', '.join(c.id for c in cards)}.",
            kind="invalid_request_error",
            code="model_not_found",
            param="model",
        )
