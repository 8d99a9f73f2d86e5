"""Liveness apart from readiness, and no request to the engine before it can answer."""

from __future__ import annotations

import enum
import time

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.gateway.errors import send_error, send_json
from serve.gateway.exchange import exchange_of


class Phase(enum.Enum):
    """Where the server is in its life; the value is what ``/ready`` reports."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


_REFUSALS = {
    Phase.LOADING: "the model is still loading; ask /ready, or try again in a few seconds.",
    Phase.DRAINING: "the server is shutting down and takes no new requests.",
    Phase.FAILED: "the engine has stopped; the server's log says why. Restart the server.",
}
# Seconds for Retry-After: a model loads in tens of seconds, a replacement server takes longer.
_RETRY_AFTER = {Phase.LOADING: "2", Phase.DRAINING: "30", Phase.FAILED: "30"}


class Readiness:
    """The phase, and the app that takes requests from the moment it is ready."""

    def __init__(self) -> None:
        self.phase = Phase.LOADING
        self.app: ASGIApp | None = None
        self._since = time.monotonic()

    def ready(self, app: ASGIApp) -> None:
        """Let requests through to ``app``."""
        self.app = app
        self._enter(Phase.READY)

    def drain(self) -> None:
        """Refuse new requests; those in flight are not touched."""
        self._enter(Phase.DRAINING)

    def fail(self) -> None:
        """Refuse requests because there is no engine to answer them."""
        self._enter(Phase.FAILED)

    def seconds_in_phase(self) -> float:
        """How long the server has been in its present phase."""
        return time.monotonic() - self._since

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._since = time.monotonic()


class ReadinessGate:
    """Answers ``/health`` and ``/ready``; passes the rest on only while ready."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, pass the request on, or refuse it, by the phase."""
        readiness = self._readiness
        phase, app = readiness.phase, readiness.app
        if scope["path"] == "/health":
            await send_json(send, 200, {"status": "alive"})
        elif scope["path"] == "/ready":
            body = {"status": phase.value, "seconds": round(readiness.seconds_in_phase(), 1)}
            if phase is Phase.READY:
                await send_json(send, 200, body)
            else:
                await send_json(send, 503, body, {"retry-after": _RETRY_AFTER[phase]})
        elif phase is Phase.READY and app is not None:
            await app(scope, receive, send)
        else:
            code = exchange_of(scope).rejected = f"server_{phase.value}"
            await send_error(
                send,
                503,
                _REFUSALS[phase],
                kind="server_error",
                code=code,
                headers={"retry-after": _RETRY_AFTER[phase], "connection": "close"},
            )
