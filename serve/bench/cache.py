"""``llmkit bench cache``: what the KV cache, prefix caching and continuous batching each save."""

from __future__ import annotations

import asyncio
import gc
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve.bench.client import Target
from serve.bench.load import Load, Round, run_load, run_static
from serve.bench.plots import Line, Plot, write_report
from serve.bench.summary import Summary, summarize
from serve.bench.workload import Ask, made_up
from serve.device import choose_device
from serve.errors import EngineFailed
from serve.model import ServedModel
from serve.process import ServerProcess
from serve.settings import ServeSettings
from serve.vllm_settings import dtype_of


@dataclass(frozen=True)
class TokenTimes:
    """Time of each generated token with and without the KV cache, in seconds."""

    prompt_tokens: int
    cached: tuple[float, ...]
    """Of the second token on; the first is the prompt's."""

    uncached: tuple[float, ...]


@dataclass(frozen=True)
class Batching:
    """The same requests in static batches and batched continuously."""

    batch: int
    lengths: tuple[int, ...]
    static: Summary
    continuous: Summary

    @property
    def gain(self) -> float:
        """Tokens a second, continuous over static."""
        return self.continuous.output_tokens_per_second / self.static.output_tokens_per_second


@dataclass(frozen=True)
class CacheFigures:
    """All of `llmkit bench cache`."""

    kv: TokenTimes
    prefix_tokens: int
    prefix: Summary
    """With prefix caching."""

    no_prefix: Summary
    """Without."""

    batching: Batching


def measure_cache(
    model: ServedModel,
    settings: ServeSettings,
    *,
    prompt_tokens: int = 128,
    new_tokens: int = 64,
    prefix_tokens: int = 512,
    requests: int = 16,
    batch: int = 8,
    lengths: Sequence[int] = (8, 16, 32, 128),
    say: Callable[[str], None] = lambda _: None,
) -> CacheFigures:
    """Measure all three, one after the other, on this machine.

    Args:
        model: what to measure with.
        settings: of the servers that are started for it; prefix caching is set here.
        prompt_tokens: length of the prompt whose continuation is timed token by token.
        new_tokens: how many tokens are timed.
        prefix_tokens: words that the prompts of the prefix measurement share.
        requests: of the prefix measurement, and of each turn of the batching measurement.
        batch: requests at once in the batching measurement.
        lengths: answers' lengths in it, in turn.
        say: told what begins.

    Raises:
        EngineFailed, ServerDidNotStart: a server failed, or refused the requests.
    """
    dtype = dtype_of(settings, choose_device(settings.device))
    say(f"per-token time with and without KV cache: {new_tokens} tokens with transformers")
    kv = token_times(model.path, prompt_tokens, new_tokens, dtype)
    _free_gpu()
    shared = made_up(requests, 16, [1], prefix_tokens=prefix_tokens)
    say("time to first token with a shared prefix, without prefix caching")
    with _server(model, settings, prefix_caching=False) as target:
        no_prefix = _sequential(target, shared)
    say("the same with prefix caching; then static and continuous batching")
    with _server(model, settings, prefix_caching=True) as target:
        prefix = _sequential(target, shared)
        batching = _batching(target, requests, batch, lengths)
    return CacheFigures(kv, prefix_tokens, prefix, no_prefix, batching)


def token_times(folder: Path, prompt_tokens: int, new_tokens: int, dtype: str) -> TokenTimes:
    """Time transformers' generate token by token, with its KV cache and without.

    Every token without a cache computes the whole context again, so its time grows with the
    context; with a cache it computes itself alone.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    from serve.quiet_exit import silence_teardown

    silence_teardown()
    logging.disable_progress_bar()
    vocabulary = AutoConfig.from_pretrained(folder).get_text_config().vocab_size
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded.to(device)
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(0, vocabulary, (1, prompt_tokens), generator=generator).to(device)

    def run(tokens: int, *, cache: bool) -> tuple[float, ...]:
        moments = _Moments()
        with torch.inference_mode():
            loaded.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                use_cache=cache,
                streamer=moments,
                pad_token_id=0,
            )
        return moments.between()

    for cache in (True, False):  # what is made at first use is made now
        run(4, cache=cache)
    return TokenTimes(prompt_tokens, run(new_tokens, cache=True), run(new_tokens, cache=False))


def _free_gpu() -> None:
    """Give back the memory of models that are no longer used: a server that follows wants it."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()


class _Moments:
    """A streamer of transformers' that keeps when each token came."""

    def __init__(self) -> None:
        self._moments: list[float] = []

    def put(self, _tokens: Any) -> None:
        self._moments.append(time.perf_counter())

    def end(self) -> None:
        """Nothing to do."""

    def between(self) -> tuple[float, ...]:
        # The first call is for the prompt itself.
        tokens = self._moments[1:]
        return tuple(after - before for before, after in itertools.pairwise(tokens))


def write_cache(folder: Path, model: str, figures: CacheFigures) -> Path:
    """Plots and page of `measure_cache`'s figures; the page's path."""
    kv, batching = figures.kv, figures.batching
    context = [kv.prompt_tokens + 1 + index for index in range(len(kv.cached))]
    plots = [
        Plot(
            "kv_cache",
            "Time per token with and without KV cache (transformers)",
            "tokens of context",
            "ms",
            [
                Line("without", context, [1000 * each for each in kv.uncached]),
                Line("with KV cache", context, [1000 * each for each in kv.cached]),
            ],
        ),
        Plot(
            "prefix_cache",
            f"Time to first token, {figures.prefix_tokens} words shared by all prompts",
            "",
            "ms (median)",
            bars={
                "prefix caching off": 1000 * _ttft(figures.no_prefix),
                "prefix caching on": 1000 * _ttft(figures.prefix),
            },
        ),
        Plot(
            "batching",
            f"Answers of {', '.join(map(str, batching.lengths))} tokens, {batching.batch} at once",
            "",
            "output tokens/s",
            bars={
                "static batches": batching.static.output_tokens_per_second,
                "continuous batching": batching.continuous.output_tokens_per_second,
            },
        ),
    ]
    remark = f"{model}, {time.strftime('%Y-%m-%d %H:%M')}."
    return write_report(folder, "What caching and batching save", [remark], rows(figures), plots)


def rows(figures: CacheFigures) -> list[dict[str, str]]:
    """The three comparisons as a person reads them."""
    kv, batching = figures.kv, figures.batching

    def compared(what: str, without: float, with_it: float, unit: str) -> dict[str, str]:
        gain = with_it / without if unit == "tokens/s" else without / with_it
        return {
            "what": what,
            "without": f"{without:.1f} {unit}",
            "with": f"{with_it:.1f} {unit}",
            "gain": f"{gain:.2f}x",
        }

    median = statistics.median
    return [
        compared(
            "KV cache: time per token", 1000 * median(kv.uncached), 1000 * median(kv.cached), "ms"
        ),
        compared(
            "prefix caching: time to first token",
            1000 * _ttft(figures.no_prefix),
            1000 * _ttft(figures.prefix),
            "ms",
        ),
        compared(
            "continuous against static batching",
            batching.static.output_tokens_per_second,
            batching.continuous.output_tokens_per_second,
            "tokens/s",
        ),
    ]


def _ttft(summary: Summary) -> float:
    assert summary.ttft is not None
    return summary.ttft.p50


@contextmanager
def _server(
    model: ServedModel, settings: ServeSettings, *, prefix_caching: bool
) -> Iterator[Target]:
    """A server for as long as a measurement lasts."""
    changed = settings.model_copy(update={"prefix_caching": prefix_caching})
    with (
        tempfile.TemporaryDirectory(prefix="llmkit-bench-") as folder,
        ServerProcess(model, Path(folder) / "server.log", changed) as server,
    ):
        yield Target(server.url, server.model.name, ignore_eos=True)


def _sequential(target: Target, asks: Sequence[Ask]) -> Summary:
    """One request after the other; the first, which fills the cache, is not counted."""
    asyncio.run(run_load(target, asks[:1], Load(concurrency=1)))
    return _answered(asyncio.run(run_load(target, asks[1:], Load(concurrency=1))))


def _batching(target: Target, requests: int, batch: int, lengths: Sequence[int]) -> Batching:
    """Two turns of each, in both orders, with prompts that no other turn has cached."""
    seeds = itertools.count(1)

    def asks() -> list[Ask]:
        return made_up(requests, 16, lengths, seed=next(seeds))

    def static() -> Round:
        return asyncio.run(run_static(target, asks(), batch))

    def continuous() -> Round:
        return asyncio.run(run_load(target, asks(), Load(concurrency=batch)))

    static()  # what an engine makes at its first batch of this size is made now
    turns = [static(), continuous(), continuous(), static()]
    return Batching(
        batch,
        tuple(lengths),
        static=_answered(_together(turns[0], turns[3])),
        continuous=_answered(_together(turns[1], turns[2])),
    )


def _together(first: Round, second: Round) -> Round:
    return Round(first.load, first.answers + second.answers, first.seconds + second.seconds)


def _answered(done: Round) -> Summary:
    summary = summarize(done)
    if summary.errors:
        raise EngineFailed(f"{sum(summary.errors.values())} requests failed: {summary.errors}.")
    return summary
