"""What `llmkit bench cache` reports, on a tiny model and a stub server."""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from openai_stub import Stub, stub_server

from serve.bench import cache
from serve.bench.client import Answer, Target
from serve.bench.load import Load, Round
from serve.bench.workload import Ask
from serve.errors import EngineFailed
from serve.model import open_model
from serve.settings import ServeSettings
from serve.vllm_settings import engine_arguments


def test_every_token_after_the_first_is_timed_with_and_without_cache(tiny: Path) -> None:
    times = cache.token_times(tiny, prompt_tokens=16, new_tokens=6, dtype="float32")
    assert len(times.cached) == len(times.uncached) == 5
    assert min(*times.cached, *times.uncached) > 0


@pytest.mark.parametrize(("on", "passed"), [(True, None), (False, False)])
def test_prefix_caching_is_the_engines(tiny: Path, on: bool, passed: bool | None) -> None:
    settings = ServeSettings(prefix_caching=on)
    arguments = engine_arguments(open_model(tiny), settings, "cpu")
    assert arguments["enable_prefix_caching"] is passed


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Stub, list[bool]]]:
    started: list[bool] = []
    with stub_server() as (url, stub):
        stub.seconds_per_token = 0.001

        @contextmanager
        def server(_model: object, _settings: object, *, prefix_caching: bool) -> Iterator[Target]:
            started.append(prefix_caching)
            yield Target(url, "stub", ignore_eos=True)

        monkeypatch.setattr(cache, "_server", server)
        yield stub, started


def test_all_three_are_measured_and_drawn(
    stubbed: tuple[Stub, list[bool]], tiny: Path, tmp_path: Path
) -> None:
    stub, started = stubbed
    model = open_model(tiny)
    settings = ServeSettings(dtype="float32")
    figures = cache.measure_cache(
        model, settings, prompt_tokens=8, new_tokens=4, requests=8, batch=4, lengths=(1, 1, 1, 60)
    )
    assert started == [False, True]
    assert all(body["ignore_eos"] for body in stub.asked)
    # Static batches of four wait for a long answer each; continuous ones start the next meanwhile.
    assert figures.batching.static.completion_tokens == 2 * 126
    assert figures.batching.continuous.completion_tokens == 2 * 126
    assert figures.prefix.requests == figures.no_prefix.requests == 7
    page = cache.write_cache(tmp_path, model.name, figures)
    assert page.read_text().count("<img") == 3
    assert [row["what"].split(":")[0] for row in cache.rows(figures)] == [
        "KV cache",
        "prefix caching",
        "continuous against static batching",
    ]


def test_batching_is_measured_in_both_orders_with_prompts_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns: list[str] = []
    prompts: list[str] = []

    def noting(kind: str, seconds: float) -> Any:
        async def run(_target: Target, asks: Sequence[Ask], *_: object) -> Round:
            turns.append(kind)
            prompts.extend(ask.messages[0]["content"] for ask in asks)
            return Round(Load(concurrency=2), (Answer(0, 1, None, 3, 10),), seconds)

        return run

    monkeypatch.setattr(cache, "run_static", noting("static", 4.0))
    monkeypatch.setattr(cache, "run_load", noting("continuous", 2.0))
    found = cache._batching(Target("", ""), requests=4, batch=2, lengths=(1, 9))
    assert turns[1:] == ["static", "continuous", "continuous", "static"]
    assert len(set(prompts)) == len(prompts) == 5 * 4
    assert (found.static.output_tokens_per_second, found.gain) == (2.5, 2.0)


def test_the_model_is_gone_before_a_server_starts(
    stubbed: tuple[Stub, list[bool]], tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    stubbed[0].seconds_per_token = 0.0
    load, loaded = AutoModelForCausalLM.from_pretrained, []

    def noting(*args: Any, **options: Any) -> Any:
        model = load(*args, **options)
        loaded.append(weakref.ref(model))
        return model

    freed = []
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", noting)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(loaded[0]() is None))
    cache.measure_cache(
        open_model(tiny), ServeSettings(dtype="float32"), prompt_tokens=4, new_tokens=3, requests=2
    )
    assert freed == [True]


def test_a_request_that_fails_fails_the_measurement(
    stubbed: tuple[Stub, list[bool]], tiny: Path
) -> None:
    stub, _ = stubbed
    stub.status = 500
    with pytest.raises(EngineFailed, match="requests failed"):
        cache.measure_cache(
            open_model(tiny), ServeSettings(dtype="float32"), prompt_tokens=4, new_tokens=3
        )
