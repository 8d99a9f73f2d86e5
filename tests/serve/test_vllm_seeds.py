"""A request's seed while its prompt is computed in parts, on CPU."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vllm")
pytest.importorskip("vllm.platforms.cpu")

import torch

from serve import vllm_seeds


def runner(unfinished: list[bool], seeded: list[int]) -> Any:
    generators = {row: torch.Generator().manual_seed(row) for row in seeded}
    return SimpleNamespace(
        input_batch=SimpleNamespace(num_reqs=len(unfinished), generators=generators),
        discard_request_mask=SimpleNamespace(np=np.array([*unfinished, True, True])),
    )


def test_nothing_is_drawn_for_a_prompt_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def sample(given: Any, _: Any) -> str:
        drawn.extend(given.input_batch.generators)
        for generator in given.input_batch.generators.values():
            torch.rand(1, generator=generator)
        return "sampled"

    monkeypatch.setattr(vllm_seeds, "_sample", sample)
    given = runner([True, False, True, False], seeded=[0, 1, 3])
    before = {row: each.get_state() for row, each in given.input_batch.generators.items()}
    assert vllm_seeds.sample_tokens(given, None) == "sampled"
    after = given.input_batch.generators
    assert drawn == [1, 3]
    assert set(after) == {0, 1, 3}
    assert {row: bool((after[row].get_state() == before[row]).all()) for row in after} == {
        0: True,
        1: False,
        3: False,
    }


def test_generators_come_back_when_sampling_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def sample(*_: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(vllm_seeds, "_sample", sample)
    given = runner([True], seeded=[0])
    with pytest.raises(RuntimeError, match="no"):
        vllm_seeds.sample_tokens(given, None)
    assert set(given.input_batch.generators) == {0}


def test_it_is_still_needed_and_still_reached() -> None:
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    assert CPUModelRunner.sample_tokens is vllm_seeds.sample_tokens
    with pytest.raises(RuntimeError, match="offset"):
        torch.Generator().get_offset()
