"""What the layers of the gateway learn about one request, in one place that all can read."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Scope

from serve.keys.key import Key

_IN_SCOPE = "llmkit.exchange"


@dataclass
class Exchange:
    """One request and its answer. Each field says which layer fills it; the rest only read."""

    request_id: str = field(default_factory=lambda: f"req-{uuid.uuid4().hex}")
    """Sent back as ``x-request-id``. Observe takes the client's own where it is fit to log."""

    started: float = field(default_factory=time.perf_counter)
    """When the request came, on `time.perf_counter`'s clock, in seconds."""

    route: str | None = None
    """The allow-list's path, such as ``/v1/models/{id}``: a bounded label. None: not offered."""

    key: Key | None = None
    """Who asks (Authenticate). None while the server is open, or before the key was checked."""

    body: dict[str, Any] | None = None
    """The request's JSON object, parsed once (CheckBody)."""

    model: str | None = None
    """The model or adapter that answers: one that is served, hence a bounded label (CheckBody;
    AdapterRequests puts the version in place of an alias)."""

    priority: int = 0
    """Requests with a higher one wait for those with a lower, here and in the engine. Batches set
    it on their lines; a client can't."""

    rejected: str | None = None
    """The error's code, where the gateway refused the request: a bounded label."""

    cut_short: int | None = None
    """The status that the connection's guard answered with, because the body came too slowly or
    with too much beside it."""

    queued: float = 0.0
    """Seconds spent waiting for a turn (Backpressure)."""

    prompt_tokens: int = 0
    """Tokens of the prompt, as the engine counted them (Account)."""

    completion_tokens: int = 0
    """Tokens generated, as the engine counted them; of a stream of which it told nothing, its
    chunks."""

    first_token: float | None = None
    """When the first chunk of the answer's text went out (Account), as `started`."""

    last_token: float | None = None
    """When the last one went out."""


def exchange_of(scope: Scope) -> Exchange:
    """The exchange of a request; a new one for a layer that is used on its own."""
    exchange = scope.get(_IN_SCOPE)
    if exchange is None:
        exchange = scope[_IN_SCOPE] = Exchange()
    assert isinstance(exchange, Exchange)
    return exchange


def with_exchange(scope: Scope, exchange: Exchange) -> Scope:
    """A scope for another request, made on behalf of this one."""
    return {**scope, _IN_SCOPE: exchange}
