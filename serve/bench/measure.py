"""``llmkit bench serve``: one endpoint under several loads, its figures and its plots."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import aiohttp

from serve.bench.client import Answer, Target, session
from serve.bench.load import Load, run_load
from serve.bench.plots import Line, Plot, write_report
from serve.bench.summary import Spread, Summary, summarize
from serve.bench.workload import Ask
from serve.errors import ServeError


class EndpointNotUsable(ServeError):
    """The endpoint cannot be measured: it is not there, or refuses."""

    exit_code = 1


def first_model(url: str, key: str | None) -> str:
    """The first model that an endpoint lists.

    Raises:
        EndpointNotUsable: nothing answers there, it refuses the key, or it lists none.
    """
    return asyncio.run(_first_model(Target(url, "", key)))


async def _first_model(target: Target) -> str:
    try:
        async with session(target, 10) as client, client.get(f"{target.url}/models") as answer:
            if answer.status != 200:
                raise EndpointNotUsable(
                    f"{target.url}/models answers {answer.status}. Give the base URL that clients "
                    "use, ending in /v1; a key goes into LLMKIT_API_KEY."
                )
            models = [str(each["id"]) for each in (await answer.json())["data"]]
    except (aiohttp.ClientError, OSError, ValueError, LookupError, TypeError) as error:
        raise EndpointNotUsable(
            f"{target.url}: no OpenAI-compatible server answers there ({error or 'timed out'})."
        ) from None
    if not models:
        raise EndpointNotUsable(f"{target.url}/models lists no model.")
    return models[0]


def measure(
    target: Target,
    asks: Callable[[int], Sequence[Ask]],
    loads: Sequence[Load],
    *,
    warm_up: int = 4,
    on_round: Callable[[Summary], None] = lambda _: None,
    on_answer: Callable[[Answer], None] = lambda _: None,
) -> list[Summary]:
    """Ask requests under each load in turn.

    Args:
        target: what is measured.
        asks: the requests of the load with this number; 0 is the warm-up's. Where they differ, no
            load finds its prompts in a cache that an earlier one filled.
        loads: concurrencies and rates.
        warm_up: requests sent before, which count nowhere.
        on_round: called when a load is done.
        on_answer: called for every answer.

    Raises:
        EndpointNotUsable: no request of the warm-up was answered; the reason is named.
    """

    async def all_of_it() -> list[Summary]:
        warmed = await run_load(target, asks(0)[:warm_up], Load(concurrency=2))
        errors = [answer.error for answer in warmed.answers if answer.error]
        if warmed.answers and len(errors) == len(warmed.answers):
            raise EndpointNotUsable(f"{target.url}: no request was answered ({errors[0]}).")
        summaries = []
        for number, load in enumerate(loads, 1):
            done = await run_load(target, asks(number), load, on_answer=on_answer)
            summaries.append(summarize(done))
            on_round(summaries[-1])
        return summaries

    return asyncio.run(all_of_it())


def write(folder: Path, target: Target, summaries: Sequence[Summary], remarks: list[str]) -> Path:
    """Plots and page of `measure`'s figures; the page's path."""
    when = time.strftime("%Y-%m-%d %H:%M")
    streamed = "streamed" if target.stream else "not streamed"
    told = [f"{target.model} at {target.url}, {when}, answers {streamed}.", *remarks]
    return write_report(
        folder, "Serving under load", told, [row(each) for each in summaries], _plots(summaries)
    )


def row(summary: Summary) -> dict[str, str]:
    """A load's figures as a person reads them."""

    def ms(spread: Spread | None, name: str) -> str:
        return f"{1000 * getattr(spread, name):.0f}" if spread else "-"

    return {
        "load": summary.load,
        "requests": str(summary.requests),
        "failed": str(sum(summary.errors.values())),
        "req/s": f"{summary.requests_per_second:.2f}",
        "tokens/s": f"{summary.output_tokens_per_second:.1f}",
        "at once": f"{summary.concurrency:.1f}",
        "TTFT p50 ms": ms(summary.ttft, "p50"),
        "p99": ms(summary.ttft, "p99"),
        "TPOT p50 ms": ms(summary.tpot, "p50"),
        "TPOT p99": ms(summary.tpot, "p99"),
        "latency p50 ms": ms(summary.latency, "p50"),
        "latency p99": ms(summary.latency, "p99"),
    }


def _plots(summaries: Sequence[Summary]) -> list[Plot]:
    at = sorted((each for each in summaries if each.latency), key=lambda each: each.concurrency)
    x = [each.concurrency for each in at]
    label = "requests under way (average)"
    throughput = Line("output tokens/s", x, [each.output_tokens_per_second for each in at])
    plots = [
        Plot("throughput", "Throughput against batch size", label, "output tokens/s", [throughput])
    ]
    for name, title in (
        ("latency", "Latency against batch size"),
        ("ttft", "Time to first token against batch size"),
        ("tpot", "Time per output token against batch size"),
    ):
        spreads = [getattr(each, name) for each in at]
        if at and all(spreads):
            lines = [
                Line(p, x, [1000 * getattr(spread, p) for spread in spreads])
                for p in ("p50", "p90", "p99")
            ]
            plots.append(Plot(name, title, label, "ms", lines))
    return plots
