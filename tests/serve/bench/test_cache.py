"""What `llmkit bench cache` reports, on a tiny model and a stub server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from openai_stub import Stub, stub_server

from serve.bench import cache
from serve.bench.client import Target
from serve.errors import EngineFailed
from serve.model import open_model
from serve.settings import ServeSettings
from serve.vllm_settings import engine_arguments


def test_every_token_after_the_first_is_timed_with_and_without_cache(tiny: Path) -> None:
    times = cache.token_times(tiny, prompt_tokens=16, new_tokens=6, dtype="float32")
    assert len(times.cached) == len(times.uncached) == 5
    assert min(*times.cached, *times.uncached) > 0


@pytest.mark.parametrize("on", [True, False])
def test_prefix_caching_is_the_engines(tiny: Path, on: bool) -> None:
    settings = ServeSettings(prefix_caching=on)
    arguments = engine_arguments(open_model(tiny), settings, "cpu")
    assert arguments["enable_prefix_caching"] is on


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Stub, list[bool]]]:
    started: list[bool] = []
    with stub_server() as (url, stub):
        stub.seconds_per_token = 0.003

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
    assert figures.batching.static.completion_tokens == 126
    assert figures.batching.continuous.completion_tokens == 126
    assert figures.prefix.requests == figures.no_prefix.requests == 7
    page = cache.write_cache(tmp_path, model.name, figures)
    assert page.read_text().count("<img") == 3
    assert [row["what"].split(":")[0] for row in cache.rows(figures)] == [
        "KV cache",
        "prefix caching",
        "continuous against static batching",
    ]


def test_a_request_that_fails_fails_the_measurement(
    stubbed: tuple[Stub, list[bool]], tiny: Path
) -> None:
    stub, _ = stubbed
    stub.status = 500
    with pytest.raises(EngineFailed, match="requests failed"):
        cache.measure_cache(
            open_model(tiny), ServeSettings(dtype="float32"), prompt_tokens=4, new_tokens=3
        )
