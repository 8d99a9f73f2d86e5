"""Figures of a round: throughput, and percentiles of what clients waited for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from serve.bench.load import Round


@dataclass(frozen=True)
class Spread:
    """Of one kind of waiting, over the requests that were answered; seconds."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    longest: float


@dataclass(frozen=True)
class Summary:
    """What one load gave."""

    load: str
    requests: int
    errors: dict[str, int]
    """How many failed, by what went wrong."""

    seconds: float
    """From the first request to the last answer."""

    requests_per_second: float
    """Of those that were answered."""

    prompt_tokens: int
    completion_tokens: int
    output_tokens_per_second: float
    concurrency: float
    """Requests under way on average: the size of the batch that clients asked for."""

    latency: Spread | None
    """From sending to the last byte."""

    ttft: Spread | None
    """Time to first token; None without streaming."""

    tpot: Spread | None
    """Time per output token after the first; None without streaming."""

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)


def summarize(done: Round) -> Summary:
    """The figures of a round."""
    good = [answer for answer in done.answers if answer.error is None]
    tokens = sum(answer.completion_tokens for answer in good)
    return Summary(
        load=str(done.load),
        requests=len(done.answers),
        errors=dict(Counter(answer.error for answer in done.answers if answer.error)),
        seconds=done.seconds,
        requests_per_second=len(good) / done.seconds,
        prompt_tokens=sum(answer.prompt_tokens for answer in good),
        completion_tokens=tokens,
        output_tokens_per_second=tokens / done.seconds,
        concurrency=sum(answer.seconds for answer in done.answers) / done.seconds,
        latency=_spread([answer.seconds for answer in good]),
        ttft=_spread([answer.ttft for answer in good]),
        tpot=_spread([answer.tpot for answer in good]),
    )


def _spread(values: Sequence[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    p50, p90, p95, p99 = (float(value) for value in np.percentile(known, [50, 90, 95, 99]))
    return Spread(float(np.mean(known)), p50, p90, p95, p99, max(known))
