"""OpenTelemetry: a span for every request, above the span that vLLM makes for its engine.

A client that sends a ``traceparent`` header gets both into its own trace. What is sampled follows
OpenTelemetry's own variables (``OTEL_TRACES_SAMPLER``), as do the exporter's headers
(``OTEL_EXPORTER_OTLP_HEADERS``).

Reference:
    https://opentelemetry.io/docs/specs/semconv/gen-ai/
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from serve.gateway.exchange import Exchange

if TYPE_CHECKING:
    from opentelemetry.trace import Span

SERVICE_NAME = "llmkit"
_SECONDS_TO_CLOSE = 3.0
_PARENT_HEADERS = (b"traceparent", b"tracestate")


class Tracing:
    """Makes spans, and sends them to a collector from a thread of its own."""

    def __init__(self, endpoint: str) -> None:
        """Send to ``endpoint``, such as ``http://localhost:4318/v1/traces``."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        name = os.environ.get("OTEL_SERVICE_NAME", SERVICE_NAME)
        # Its own provider: vLLM sets the process' global one.
        self._provider = TracerProvider(resource=Resource.create({"service.name": name}))
        exporter = OTLPSpanExporter(endpoint=endpoint)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("llmkit.serve")
        self._propagator = TraceContextTextMapPropagator()

    def start(self, method: str, headers: Sequence[tuple[bytes, bytes]]) -> RequestSpan:
        """Begin a request's span, below the client's if the headers name one."""
        from opentelemetry.trace import SpanKind

        parent = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in headers
            if name in _PARENT_HEADERS
        }
        span = self._tracer.start_span(
            method,
            self._propagator.extract(parent),
            SpanKind.SERVER,
            {"http.request.method": method},
        )
        return RequestSpan(span, method)

    def close(self) -> None:
        """Send what is left, for three seconds at most: a collector may be gone."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_SECONDS_TO_CLOSE)


class RequestSpan:
    """One request's span."""

    def __init__(self, span: Span, method: str) -> None:
        self._span = span
        self._method = method
        context = span.get_span_context()
        self.trace_id = f"{context.trace_id:032x}"
        """For the access log."""
        self.traceparent = (
            f"00-{self.trace_id}-{context.span_id:016x}-{context.trace_flags:02x}".encode()
        )
        """For the engine, whose span goes below this one."""

    def end(self, exchange: Exchange, status: int, ended: float) -> None:
        """End the span with what is known of the request, never with what it said.

        Args:
            exchange: what the layers noted.
            status: the answer's HTTP status.
            ended: when it ended, on the exchange's clock.
        """
        from opentelemetry.trace import StatusCode

        span = self._span
        # Spans have the wall clock, in nanoseconds.
        offset = time.time() - time.perf_counter()
        span.update_name(f"{self._method} {exchange.route}" if exchange.route else self._method)
        known = {
            "http.route": exchange.route,
            "http.response.status_code": status,
            "gen_ai.request.model": exchange.model,
            "gen_ai.usage.input_tokens": exchange.prompt_tokens or None,
            "gen_ai.usage.output_tokens": exchange.completion_tokens or None,
            "llmkit.request_id": exchange.request_id,
            "llmkit.key": exchange.key.id if exchange.key else None,
            "llmkit.queued_seconds": exchange.queued or None,
            "error.type": exchange.rejected,
        }
        span.set_attributes({name: value for name, value in known.items() if value is not None})
        if exchange.first_token is not None:
            span.add_event("first token", timestamp=int((exchange.first_token + offset) * 1e9))
        if status >= 500:
            span.set_status(StatusCode.ERROR)
        span.end(int((ended + offset) * 1e9))
