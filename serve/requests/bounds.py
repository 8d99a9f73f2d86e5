"""What a running engine can take: the facts that requests are checked against."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """Facts about the engine and its model that a request must fit."""

    models: Callable[[], Collection[str]]
    """Names that requests may choose at this moment: the base, adapters' versions, aliases."""

    max_model_len: int
    """Longest prompt plus answer, in tokens."""

    vocabulary: int
    """Token ids are below this."""

    max_logprobs: int = 20
    """Most alternatives to give for a token."""

    tasks: Collection[str] = ("generate",)
    """What the model does, in vLLM's terms: generate, embed."""

    has_adapters: bool = False
    """Whether the engine adds adapters' products. vLLM 0.32 then takes a prompt's rows for those
    of the batch in the last layer: for logprobs of a prompt beside other requests it dies on a CPU,
    and may read another adapter's matrices on CUDA."""

    max_running: int = 256
    """Requests that one batch of the engine holds."""
