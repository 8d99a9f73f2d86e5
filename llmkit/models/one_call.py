"""Causal attention of all rows of a pack in one call, by the FlashAttention that PyTorch ships.

On a GPU a row of some hundred tokens is too little to keep it busy, and calls row by row leave it
waiting. The kernel takes where rows begin, and keeps them apart itself. It is called only where it
was tried, on this GPU, for this type and these heads, and gave what attention row by row gives.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from operator import sub
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import scaled_dot_product_attention

MOST_SIZE = 256
"""Of a head; FlashAttention has no kernels for larger ones."""
TRIED_STARTS = (0, 3, 40, 41, 130)
CLOSE = 0.03
"""Largest difference in the trial, as a share of the largest value: bfloat16 keeps 8 bits."""

_flash: Any = torch.ops.aten._flash_attention_forward


def attention_in_one_call(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    row_starts: Sequence[int],
    scale: float | None,
) -> torch.Tensor | None:
    """Causal attention inside each row, where one kernel can do it.

    Args:
        query: shape ``[1, heads, tokens, head_size]``.
        key: shape ``[1, key_heads, tokens, head_size]``.
        value: as ``key``.
        row_starts: where each row begins, and the total, shape ``[rows + 1]``.
        scale: of the scores; 1/sqrt(head_size) by default.

    Returns:
        Shape ``[1, tokens, heads, head_size]``; None where it cannot be done in this way.
    """
    kind = query.device.type
    if torch.is_autocast_enabled(kind):  # as for torch's own attention, which has this kernel
        dtype = torch.get_autocast_dtype(kind)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    size = query.shape[3]
    fitting = query.dtype in (torch.bfloat16, torch.float16) and size == value.shape[3]
    if not fitting or size % 8 or size > MOST_SIZE:
        return None
    try:
        if not _agrees(query.device, query.dtype, query.shape[1], key.shape[1], size):
            return None
    except torch.OutOfMemoryError:  # the trial's, not the kernel's fault: the next call tries again
        return None
    return _attend(query, key, value, tuple(row_starts), scale)


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    row_starts: tuple[int, ...],
    scale: float | None,
) -> torch.Tensor:
    """The kernel's call; it wants tokens before heads, and has no batches beside rows."""
    starts = _on_device(row_starts, query.device)
    longest = max(map(sub, row_starts[1:], row_starts))
    by_token = (each[0].transpose(0, 1) for each in (query, key, value))
    out: torch.Tensor = _flash(
        *by_token,
        starts,
        starts,
        longest,
        longest,
        0.0,  # dropout
        True,  # noqa: FBT003 (causal)
        False,  # noqa: FBT003 (no mask to look at)
        scale=scale,
    )[0]
    return out[None]


@lru_cache(maxsize=4)
def _on_device(row_starts: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Row starts where the kernel reads them: once for all layers, without waiting for the GPU."""
    starts = torch.tensor(row_starts, dtype=torch.int32)
    if device.type == "cuda":
        starts = starts.pin_memory()
    return starts.to(device, non_blocking=True)


@lru_cache
def _agrees(
    device: torch.device, dtype: torch.dtype, heads: int, key_heads: int, size: int
) -> bool:
    """Whether the kernel runs, and gives the outputs and gradients of attention row by row.

    Raises:
        OutOfMemoryError: there is no room to try it now; nothing is remembered of that.
    """
    generator = torch.Generator().manual_seed(0)  # the training's own numbers stay as they are
    tokens = TRIED_STARTS[-1]
    shapes = [(1, each, tokens, size) for each in (heads, key_heads, key_heads)]
    drawn = [torch.randn(shape, generator=generator) for shape in shapes]
    weights = torch.randn((1, tokens, heads, size), generator=generator).to(device, dtype)
    # A checkpointed layer that is being run keeps what is saved for backward: not this.
    apart = saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)
    no_casts = torch.autocast(device.type, enabled=False)
    with torch.inference_mode(mode=False), torch.enable_grad(), no_casts, apart:
        found = []
        for attend in (_attend, _row_by_row):
            query, key, value = (each.to(device, dtype).requires_grad_() for each in drawn)
            try:
                out = attend(query, key, value, TRIED_STARTS, None)
                gradients = torch.autograd.grad((out * weights).sum(), [query, key, value])
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, TypeError, AttributeError):
                return False  # not built for this GPU, or of another signature in this torch
            found.append([out.detach(), *gradients])
    return all(
        bool((ours.float() - theirs.float()).abs().max() <= CLOSE * theirs.float().abs().max())
        for ours, theirs in zip(*found, strict=True)
    )


def _row_by_row(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    row_starts: tuple[int, ...],
    scale: float | None,
) -> torch.Tensor:
    """What the kernel is compared with."""
    rows = [
        scaled_dot_product_attention(
            query[:, :, start:end],
            key[:, :, start:end],
            value[:, :, start:end],
            is_causal=True,
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        for start, end in pairwise(row_starts)
    ]
    return torch.cat(rows, dim=2).transpose(1, 2)
