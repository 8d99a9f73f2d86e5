"""The outermost layer: gives each request its id, and tells metrics, log and traces its end."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.gateway.errors import send_error
from serve.gateway.exchange import Exchange, exchange_of
from serve.gateway.failures import report_failure
from serve.metrics.figures import Figures, time_per_output_token

if TYPE_CHECKING:
    from serve.access_log import AccessLog
    from serve.tracing import Tracing

CLIENT_LEFT = 499
"""Status in log and metrics where a client left before its answer began, as nginx has it."""
# What looks like a key is one that was put into the wrong header.
_FIT_ID = re.compile(rb"(?!sk-)[!-~]{1,128}")
_PROBES = frozenset({"/health", "/ready", "/metrics"})
"""Asked every few seconds by machines. They are counted; of them only a refusal of /metrics, which
needs a key, is worth a line, and none a span."""
_REQUEST_ID, _TRACE_PARENT = b"x-request-id", b"traceparent"


class Observe:
    """Sees every request first and its answer last."""

    def __init__(
        self,
        app: ASGIApp,
        figures: Figures,
        *,
        log: AccessLog | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """Observe ``app``.

        Args:
            app: the layers inside.
            figures: where requests are counted.
            log: where a line is written for each.
            tracing: makes a span of each.
        """
        self._app = app
        self._figures = figures
        self._log = log
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer through the layers inside, and report it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = exchange_of(scope)
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        for name, value in headers:
            if name == _REQUEST_ID and _FIT_ID.fullmatch(value):
                exchange.request_id = value.decode("ascii")
        sent_id = exchange.request_id.encode()
        # The engine names its answers after this header, so it gets an id that was checked.
        passed_on = [header for header in headers if header[0] != _REQUEST_ID]
        passed_on.append((_REQUEST_ID, sent_id))
        span = None
        if self._tracing is not None and scope["path"] not in _PROBES:
            span = self._tracing.start(scope["method"], headers)
            passed_on = [header for header in passed_on if header[0] != _TRACE_PARENT]
            passed_on.append((_TRACE_PARENT, span.traceparent))
        scope["headers"] = passed_on
        status, complete = 0, False

        async def note(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.body":
                complete = not message.get("more_body", False)
            elif message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (_REQUEST_ID, sent_id)]}
            await send(message)

        self._figures.under_way += 1
        try:
            await self._app(scope, receive, note)
        except Exception as error:
            report_failure(exchange.request_id, error)
            if not status:
                await send_error(
                    note,
                    500,
                    "the server failed on this request; its log says why, under the id that "
                    "the x-request-id header carries.",
                    kind="server_error",
                    code="internal_error",
                )
            # Not raised on: the HTTP server would log its message. It ends a connection whose
            # answer is not complete.
        finally:
            self._figures.under_way -= 1
            ended = time.perf_counter()
            answered = status or exchange.cut_short or CLIENT_LEFT
            self._figures.count(exchange, answered, ended)
            if span is not None:
                span.end(exchange, answered, ended)
            if self._log is not None and (exchange.route not in _PROBES or status in (401, 403)):
                client = scope.get("client")
                self._log.write(
                    time.time(),
                    partial(
                        log_fields,
                        exchange,
                        client=client[0] if client else None,
                        method=scope["method"],
                        status=answered,
                        complete=complete,
                        ended=ended,
                        trace_id=span.trace_id if span is not None else None,
                    ),
                )

    def refused(self, status: int, code: str, client: str | None) -> str:
        """Report an answer that was given below HTTP, where there was no request yet.

        Args:
            status: the answer's.
            code: its error's.
            client: the address it went to.

        Returns:
            The request id that it shall carry.
        """
        exchange = Exchange(rejected=code)
        self._figures.count(exchange, status, exchange.started)
        if self._log is not None:
            fields = partial(
                log_fields,
                exchange,
                client=client,
                method=None,
                status=status,
                complete=True,
                ended=exchange.started,
                trace_id=None,
            )
            self._log.write(time.time(), fields)
        return exchange.request_id


def log_fields(
    exchange: Exchange,
    *,
    client: str | None,
    method: str | None,
    status: int,
    complete: bool,
    ended: float,
    trace_id: str | None,
) -> Mapping[str, Any]:
    """What a line of the access log says.

    Only what the gateway itself knows: the route is the allow-list's, the model one that is
    served, the key its public id. A path, a query, a header or a body may hold a secret.
    """
    started, first = exchange.started, exchange.first_token
    pace = time_per_output_token(exchange)
    return {
        "request_id": exchange.request_id,
        "client": client,
        "method": method,
        "route": exchange.route,
        "status": status,
        "complete": complete,
        "seconds": round(ended - started, 6),
        "key": exchange.key.id if exchange.key else None,
        "model": exchange.model,
        "rejected": exchange.rejected,
        "queued_seconds": round(exchange.queued, 6) or None,
        "first_token_seconds": None if first is None else round(first - started, 6),
        "output_token_seconds": None if pace is None else round(pace, 6),
        "prompt_tokens": exchange.prompt_tokens or None,
        "completion_tokens": exchange.completion_tokens or None,
        "trace_id": trace_id,
    }
