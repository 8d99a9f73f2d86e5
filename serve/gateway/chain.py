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
    FilesRoute, BatchesRoute (whose lines come back in at CheckBody), UsageRoute
    AdaptersRoute   loads and unloads
    AdapterRequests the version in place of an alias; what unloading waits for
    Backpressure    429 or 503 when too many wait
    MetricsRoute    /metrics: vLLM's figures and ours
    OpenApiRoute
    OpenAIErrors    vLLM's errors in OpenAI's shape
    ── from here on inside, made with the engine by `serve.vllm_app` ──
    ModelsRoute     /v1/models, of what is loaded
    EngineTokens    tokens, as the engine counts them
    ── vLLM ──

Every layer is an ASGI app made with the next one, reads and fills `serve.gateway.exchange`, and
buffers nothing but request bodies (which are bounded).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass

import prometheus_client
from starlette.types import ASGIApp

from serve.access_log import AccessLog
from serve.adapters.registry import AdapterRegistry
from serve.gateway.account import Account
from serve.gateway.adapter_requests import AdapterRequests
from serve.gateway.adapters_route import PREFIX as ADAPTERS
from serve.gateway.adapters_route import AdaptersRoute
from serve.gateway.admit import Admit
from serve.gateway.authenticate import AllowedModel, Authenticate
from serve.gateway.backpressure import Backpressure
from serve.gateway.batches_route import PREFIX as BATCHES
from serve.gateway.batches_route import BatchesRoute
from serve.gateway.check_body import CheckBody
from serve.gateway.files_route import PREFIX as FILES
from serve.gateway.files_route import FilesRoute
from serve.gateway.in_flight import InFlight
from serve.gateway.observe import Observe
from serve.gateway.openai_errors import OpenAIErrors
from serve.gateway.openapi import OpenApiRoute
from serve.gateway.playground import Playground
from serve.gateway.readiness import Readiness, ReadinessGate
from serve.gateway.routes import AllowList
from serve.gateway.switched_off import SwitchedOff
from serve.gateway.usage_route import UsageRoute
from serve.keys.opening import Keys
from serve.metrics.figures import Figures
from serve.metrics.route import MetricsRoute
from serve.offline.call import AsLine, Late
from serve.offline.runner import Runner, Serving, Store
from serve.requests.bounds import Bounds
from serve.settings import ServeSettings
from serve.tracing import Tracing

_ADAPTERS_OFF = "this server was started without adapters_folder, so it loads no adapters."
_BATCHES_OFF = "this server was started without batches_folder, so it takes no files and batches."


@dataclass(frozen=True)
class EngineApp:
    """A running engine as the gateway needs it."""

    app: ASGIApp
    """vLLM's OpenAI app."""

    bounds: Bounds
    """What requests must fit."""

    adapters: AdapterRegistry | None = None
    """Adapters that can be loaded while it runs; None where that is not offered."""

    dead: Callable[[], bool] = lambda: False
    """Whether it has died."""


@dataclass(frozen=True)
class Inside:
    """The layers around one engine."""

    app: ASGIApp
    in_flight: InFlight
    batches: Runner | None = None
    """Runs batches; None where they are not offered."""

    def working(self) -> AbstractAsyncContextManager[None]:
        """What goes on beside requests, for as long as the block lasts."""
        return self.batches.running() if self.batches is not None else nullcontext()


class Gateway:
    """Puts the layers together for one server."""

    def __init__(self, settings: ServeSettings, keys: Keys | None = None) -> None:
        """Open what the layers write to.

        Raises:
            ServeError: the access log can't be written, or the batches' folder can't be used.
        """
        self._settings = settings
        self._keys = keys or Keys()
        folder = settings.batches_folder
        self._store = Store(folder, settings.max_files_bytes) if folder else None
        limit = settings.metrics_label_limit
        self._figures = Figures(keys=limit, models=limit)
        dropped = self._figures.lines_dropped.inc
        self._log = AccessLog(settings.access_log, dropped) if settings.access_log else None
        self._tracing = Tracing(settings.otlp_endpoint) if settings.otlp_endpoint else None

    def outside(self, readiness: Readiness) -> Observe:
        """The layers that answer from the first moment on."""
        app: ASGIApp = ReadinessGate(readiness)
        app = AllowList(app)
        if self._settings.playground:
            app = Playground(app)
        return Observe(app, self._figures, log=self._log, tracing=self._tracing)

    def around(self, engine: EngineApp) -> Inside:
        """The layers between `ReadinessGate` and a running engine."""
        app: ASGIApp = OpenAIErrors(engine.app, engine.dead)
        settings = self._settings
        app = OpenApiRoute(app, engine.bounds, settings, self._keys)
        # vLLM registers its families in the client library's own registry.
        app = MetricsRoute(app, [self._figures.registry, prometheus_client.REGISTRY])
        app = pressure = Backpressure(
            app,
            settings.max_running or engine.bounds.max_running,
            settings.max_queue,
            settings.queue_seconds,
        )
        self._figures.waiting.set_function(lambda: pressure.waiting)
        if engine.adapters is None:
            app = SwitchedOff(app, (ADAPTERS,), "adapters_off", _ADAPTERS_OFF)
        else:
            requests = AdapterRequests(app, engine.adapters, settings.drain_seconds)
            app = AdaptersRoute(requests, engine.adapters, requests)
        app = UsageRoute(app, self._keys)
        lines, runner = Late(), None
        if self._store is None:
            app = SwitchedOff(app, (FILES, BATCHES), "batches_off", _BATCHES_OFF)
        else:
            serving = Serving(self._keys, engine.bounds, settings, pressure)
            runner = Runner(self._store, serving, lines)
            app = BatchesRoute(app, self._store, runner, engine.bounds)
            app = FilesRoute(app, self._store.files, self._store.batches, settings.max_batch_bytes)
        # A file may take long; `serve.connections` ends those that stand still.
        app = in_flight = InFlight(app, settings.request_seconds, untimed=(FILES,))
        app = Account(app)
        app = Admit(app, self._keys, engine.bounds)
        app = AllowedModel(app)
        app = CheckBody(app, engine.bounds, self._settings)
        lines.app = Observe(AsLine(app), self._figures, log=self._log, tracing=self._tracing)
        app = Authenticate(app, self._keys)
        return Inside(app, in_flight, runner)

    def close(self) -> None:
        """Write out what is still to be logged and traced. Blocks, some seconds at most."""
        if self._log is not None:
            self._log.close()
        if self._tracing is not None:
            self._tracing.close()
        if self._store is not None:
            self._store.close()
