"""The gateway's figures, per route, model or adapter, and key."""

from __future__ import annotations

from functools import cached_property

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from serve.gateway.exchange import Exchange
from serve.metrics.labels import OTHER, BoundedLabel

_WHO = ("route", "model", "key")
# As vLLM's own time_to_first_token_seconds and request_time_per_output_token_seconds, thinned out:
# these are kept per key, so each bucket costs a series per key.
_FIRST_TOKEN = (0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_PER_TOKEN = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.2, 0.5, 1)
_QUEUE = (0.001, 0.01, 0.1, 0.5, 1, 2.5, 5, 10, 30)
_DURATION = (0.05, 0.25, 1, 2.5, 5, 10, 30, 60, 120, 300)


class _Series:
    """One route, model and key: its children of each family, made and looked up once.

    Only those with something to count: a histogram costs a dozen series, and most routes have no
    tokens.
    """

    def __init__(self, figures: Figures, who: tuple[str, str, str]) -> None:
        self._figures, self._who = figures, who
        self.by_status: dict[int, Counter] = {}

    @cached_property
    def prompt(self) -> Counter:
        return self._figures.tokens.labels(*self._who, "prompt")

    @cached_property
    def completion(self) -> Counter:
        return self._figures.tokens.labels(*self._who, "completion")

    @cached_property
    def duration(self) -> Histogram:
        return self._figures.duration.labels(*self._who)

    @cached_property
    def first_token(self) -> Histogram:
        return self._figures.first_token.labels(*self._who)

    @cached_property
    def per_token(self) -> Histogram:
        return self._figures.per_token.labels(*self._who)

    @cached_property
    def queue(self) -> Histogram:
        return self._figures.queue.labels(*self._who)


class Figures:
    """Counts finished requests. Every label has a bounded set of values."""

    def __init__(
        self, *, keys: int, models: int, registry: CollectorRegistry | None = None
    ) -> None:
        """Make the families.

        Args:
            keys: how many keys have series of their own.
            models: how many models and adapters have.
            registry: where the families are registered; a new one if not given.
        """
        self.registry = registry or CollectorRegistry()
        self._keys, self._models = BoundedLabel(keys), BoundedLabel(models)
        self._series: dict[tuple[str, str, str], _Series] = {}
        self.requests = Counter(
            "llmkit_requests",
            "Requests answered, by HTTP status; 499 is a client that left before the answer.",
            (*_WHO, "status"),
            registry=self.registry,
        )
        self.rejections = Counter(
            "llmkit_rejections",
            "Requests that the gateway refused, by the error's code.",
            (*_WHO, "code"),
            registry=self.registry,
        )
        self.tokens = Counter(
            "llmkit_tokens",
            "Tokens of prompts and completions, as the engine counted them.",
            (*_WHO, "kind"),
            registry=self.registry,
        )
        self.duration = self._times("request_duration", "From request to end of answer.", _DURATION)
        self.first_token = self._times(
            "time_to_first_token", "From request to a streamed answer's first chunk.", _FIRST_TOKEN
        )
        self.per_token = self._times(
            "time_per_output_token", "Between a streamed answer's tokens, its mean.", _PER_TOKEN
        )
        self.queue = self._times("queue_time", "Waiting for a turn in the gateway.", _QUEUE)
        self.lines_dropped = Counter(
            "llmkit_access_log_lines_dropped",
            "Lines that the access log lost: its disk was full, or it or its reader too slow.",
            registry=self.registry,
        )
        self.under_way = 0
        in_flight = Gauge(
            "llmkit_requests_in_flight", "Requests being answered.", registry=self.registry
        )
        in_flight.set_function(lambda: self.under_way)
        self.waiting = Gauge(
            "llmkit_requests_waiting",
            "Requests in the gateway's queue, waiting for a turn; not those of batches.",
            registry=self.registry,
        )

    def count(self, exchange: Exchange, status: int, ended: float) -> None:
        """Count one request whose answer has ended.

        Args:
            exchange: what the layers noted about it.
            status: the HTTP status of its answer.
            ended: when it ended, on the exchange's clock.
        """
        who = (
            exchange.route or OTHER,
            self._models.of(exchange.model),
            self._keys.of(exchange.key.id if exchange.key else None),
        )
        series = self._series.get(who)
        if series is None:
            series = self._series[who] = _Series(self, who)
        requests = series.by_status.get(status)
        if requests is None:
            requests = series.by_status[status] = self.requests.labels(*who, str(status))
        requests.inc()
        series.duration.observe(ended - exchange.started)
        if exchange.rejected is not None:
            self.rejections.labels(*who, exchange.rejected).inc()
        if exchange.prompt_tokens:
            series.prompt.inc(exchange.prompt_tokens)
        if exchange.completion_tokens:
            series.completion.inc(exchange.completion_tokens)
        if exchange.queued or exchange.prompt_tokens:
            series.queue.observe(exchange.queued)
        if exchange.first_token is not None:
            series.first_token.observe(exchange.first_token - exchange.started)
        pace = time_per_output_token(exchange)
        if pace is not None:
            series.per_token.observe(pace)

    def _times(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(
            f"llmkit_{name}_seconds", text, _WHO, buckets=buckets, registry=self.registry
        )


def time_per_output_token(exchange: Exchange) -> float | None:
    """Mean seconds between a streamed answer's tokens; None where there were not two."""
    first, last = exchange.first_token, exchange.last_token
    if first is None or last is None or exchange.completion_tokens < 2:
        return None
    return (last - first) / (exchange.completion_tokens - 1)
