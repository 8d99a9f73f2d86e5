"""Causal attention row by row on a CPU, its backward written into place.

Autograd would make a gradient as long as the pack for every row, nearly all of it zeros, and add
them up; and it would join the rows' outputs once more. Both grow with rows times tokens.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class RowsAttention(torch.autograd.Function):
    """Each row of a pack attends to itself, causally."""

    @staticmethod
    def forward(
        context: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        row_starts: Sequence[int],
        scale: float | None,
    ) -> torch.Tensor:
        """Shapes: query ``[1, heads, tokens, size]``, key and value ``[1, key_heads, ...]``.

        Returns:
            Shape ``[1, tokens, heads, size]``.
        """
        _, heads, tokens, size = query.shape
        out = query.new_empty(1, tokens, heads, size)
        sums = []
        for start, end in pairwise(row_starts):
            part = slice(start, end)
            row, logsumexp = _forward(
                query[:, :, part], key[:, :, part], value[:, :, part], is_causal=True, scale=scale
            )
            out[:, part] = row.transpose(1, 2)
            sums.append(logsumexp)
        context.save_for_backward(query, key, value, out, *sums)
        context.row_starts, context.scale = row_starts, scale
        return out

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        """Every row's gradients, in their place."""
        query, key, value, out, *sums = context.saved_tensors
        found = [torch.empty_like(each) for each in (query, key, value)]
        for (start, end), logsumexp in zip(pairwise(context.row_starts), sums, strict=True):
            part = slice(start, end)
            rows = _backward(
                gradients[0][:, part].transpose(1, 2),
                query[:, :, part],
                key[:, :, part],
                value[:, :, part],
                out[:, part].transpose(1, 2),
                logsumexp,
                dropout_p=0.0,
                is_causal=True,
                scale=context.scale,
            )
            for whole, row in zip(found, rows, strict=True):
                whole[:, :, part] = row
        return (*found, None, None)
