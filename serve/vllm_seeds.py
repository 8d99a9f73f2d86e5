"""Requests' seeds on CPU. vLLM imports this in the engine.

A prompt that is computed in parts gets a token with every part, and only the last one's is kept.
vLLM 0.32 then turns the request's generator back by what was drawn from it, which generators on CPU
cannot do: the engine dies. Here the generator of such a request is put aside for the step, so
that nothing is drawn from it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from vllm.v1.worker.cpu_model_runner import CPUModelRunner

from serve.engine_guard import EngineGuard


class CpuGuard(EngineGuard):
    """Empty: the import does the work, as for `EngineGuard`."""


_sample: Any = CPUModelRunner.sample_tokens


def sample_tokens(runner: CPUModelRunner, grammar_output: Any) -> Any:
    """vLLM's, without the generators of requests whose prompt goes on in the next step."""
    batch = runner.input_batch
    unfinished = np.flatnonzero(runner.discard_request_mask.np[: batch.num_reqs]).tolist()
    aside = {row: batch.generators.pop(row) for row in unfinished if row in batch.generators}
    try:
        return _sample(runner, grammar_output)
    finally:
        batch.generators.update(aside)


CPUModelRunner.sample_tokens = sample_tokens  # type: ignore[method-assign,assignment]
