"""The layers between the network and vLLM's app, in their order: the only place that knows it.

    Observe         request id, access log, metrics, traces; sees every answer
    Playground      the page at /
    AllowList       404 and 405; names the route
    ReadinessGate   /health, /ready; 503 until the engine can answer
    ── from here on inside, made once the engine runs ──
    Authenticate    401, 403; who asks
    CheckBody       400, 413; the body parsed once and checked against `Bounds`
    AllowedModel    404 for a model that the key may not use
    Admit           429; the key's limits; charges what was used
    Account         tokens and their times, as the answer passes
    InFlight        ends every request when the server must stop
    Backpressure    429 or 503 when too many wait
    UsageRoute, Offline (files and batches)
    OpenApiRoute, ModelsRoute, AdaptersRoute, AdapterRequests
    OpenAIErrors    vLLM's errors in OpenAI's shape
    ── vLLM ──

Every layer is an ASGI app made with the next one, reads and fills `serve.gateway.exchange`, and
buffers nothing but request bodies (which are bounded).
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.types import ASGIApp

from serve.gateway.authenticate import AllowedModel, Authenticate
from serve.gateway.bounds import Bounds
from serve.gateway.check_body import CheckBody
from serve.gateway.in_flight import InFlight
from serve.gateway.openai_errors import OpenAIErrors
from serve.gateway.readiness import Readiness, ReadinessGate
from serve.gateway.routes import AllowList
from serve.keys.opening import Keys
from serve.settings import ServeSettings


@dataclass(frozen=True)
class EngineApp:
    """A running engine as the gateway needs it."""

    app: ASGIApp
    """vLLM's OpenAI app."""

    bounds: Bounds
    """What requests must fit."""


@dataclass(frozen=True)
class Inside:
    """The layers around one engine."""

    app: ASGIApp
    in_flight: InFlight


class Gateway:
    """Puts the layers together for one server."""

    def __init__(self, settings: ServeSettings, keys: Keys | None = None) -> None:
        self._settings = settings
        self._keys = keys or Keys()

    def outside(self, readiness: Readiness) -> ASGIApp:
        """The layers that answer from the first moment on."""
        app: ASGIApp = ReadinessGate(readiness)
        return AllowList(app)

    def around(self, engine: EngineApp) -> Inside:
        """The layers between `ReadinessGate` and a running engine."""
        app: ASGIApp = OpenAIErrors(engine.app)
        app = in_flight = InFlight(app)
        app = AllowedModel(app)
        app = CheckBody(app, engine.bounds, self._settings)
        app = Authenticate(app, self._keys)
        return Inside(app, in_flight)
