"""Adapters' products on CPU, one for each adapter of a batch. vLLM imports this in the engine.

vLLM 0.32 has no kernel for LoRA on CPU: for every token of a batch it copies the whole matrix of
the token's adapter, and for a token of the base the last slot's, which it then applies. Here a
batch is sorted by adapter once a step; each adapter's rows go through its matrices in two ordinary
products, and rows of the base through none. The results are the same but for rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms.cpu import CpuPlatform

from serve.vllm_seeds import CpuGuard


@dataclass(frozen=True)
class Rows:
    """The rows of a batch that one adapter has."""

    slot: int
    """Where in the stacked matrices the adapter's are."""

    which: torch.Tensor | slice
    """Indices of shape (rows,), or a slice where they follow each other."""


def rows_by_adapter(slots: torch.Tensor) -> tuple[Rows, ...]:
    """Sort a batch: `slots` has shape (tokens,), an adapter's slot or -1 for the base."""
    found = []
    for slot in slots.unique().tolist():
        if slot < 0:
            continue
        which = (slots == slot).nonzero().flatten()
        first, last = int(which[0]), int(which[-1])
        together = last - first + 1 == len(which)
        found.append(Rows(slot, slice(first, last + 1) if together else which))
    return tuple(found)


class LoraByAdapter(PunicaWrapperCPU):
    """vLLM's LoRA on CPU with `add_lora_linear` replaced; the rest as it was."""

    _rows: tuple[Rows, ...] = ()

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Called once a step, with the adapters of its tokens."""
        super().update_metadata(*args, **kwargs)
        self._rows = rows_by_adapter(self.token_lora_indices)

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **kwargs: Any,
    ) -> None:
        """Add every adapter's share to a linear layer's output, in place.

        Args:
            y: The output, of shape (..., sum of `output_slices`).
            x: The input, of shape (..., input size).
            lora_a_stacked: One of shape (slots, 1, rank, input size) a slice of the output.
            lora_b_stacked: One of shape (slots, 1, slice, rank) a slice of the output.
            scale: Factor on every product.
            output_slices: Sizes of the slices, for layers that vLLM has put together.
            kwargs: What vLLM gives its other back-ends; not used, as in vLLM's own.
        """
        outputs = y.view(-1, y.shape[-1]).split(output_slices, dim=1)
        inputs = x.view(-1, x.shape[-1])
        for rows in self._rows:
            given = inputs[rows.which]
            for output, a, b in zip(outputs, lora_a_stacked, lora_b_stacked, strict=True):
                inner = given @ a[rows.slot, 0].T
                output[rows.which] += (inner @ b[rows.slot, 0].T) * scale


class CpuLoraGuard(CpuGuard):
    """Empty: the import does the work, as for `CpuGuard`."""


def _by_adapter(_: type[CpuPlatform]) -> str:
    return f"{LoraByAdapter.__module__}.{LoraByAdapter.__qualname__}"


CpuPlatform.get_punica_wrapper = classmethod(_by_adapter)  # type: ignore[method-assign,assignment]
