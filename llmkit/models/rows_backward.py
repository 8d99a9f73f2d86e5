"""Causal attention row by row on a CPU, its backward written into place.

Autograd would make a gradient as long as the pack for every row, nearly all of it zeros, and add
them up; and it would join the rows' outputs once more. Both grow with rows times tokens.

In bfloat16 the backward is five matrix products for some queries at a time, which on a CPU take
half the time of torch's own kernel. Rounded scores would be too coarse for ``exp(score - sum)``: at
40 a bfloat16 is off by up to 0.125. So what is subtracted goes into the product, as further columns
of its sides, and only the difference is rounded, which matters least where the weight is largest.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

QUERIES = 256
"""How many have their weights at once: with 9 heads and 1,024 keys, 4.5 MiB."""
PARTS = 3
"""bfloat16 numbers that together are a float32: 8 bits of it each."""


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
        of_row = _by_products if query.dtype == torch.bfloat16 else _by_torch
        for (start, end), logsumexp in zip(pairwise(context.row_starts), sums, strict=True):
            part = slice(start, end)
            rows = of_row(
                gradients[0][:, part].transpose(1, 2),
                query[:, :, part],
                key[:, :, part],
                value[:, :, part],
                out[:, part].transpose(1, 2),
                logsumexp,
                context.scale,
            )
            for whole, row in zip(found, rows, strict=True):
                whole[:, :, part] = row
        return (*found, None, None)


def _by_torch(
    upstream: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    logsumexp: torch.Tensor,
    scale: float | None,
) -> Sequence[torch.Tensor]:
    """A row's gradients, by torch's kernel."""
    return _backward(  # type: ignore[no-any-return]
        upstream, query, key, value, out, logsumexp, dropout_p=0.0, is_causal=True, scale=scale
    )


def _by_products(
    upstream: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    logsumexp: torch.Tensor,
    scale: float | None,
) -> Sequence[torch.Tensor]:
    """A row's gradients; query heads that share a key head are one product.

    weights = exp(scale q k' - logsumexp)          d value = weights' upstream
    d scores = weights (upstream value' - delta)   d query = scale (d scores) k
    delta = sum(upstream out)                      d key = scale (d scores)' q
    """
    _, heads, tokens, size = query.shape
    groups = key.shape[1]
    scale = size**-0.5 if scale is None else scale
    delta = (upstream.float() * out).sum(-1)
    for_query = torch.empty_like(query)
    for_key, for_value = (query.new_zeros(groups, tokens, size, dtype=torch.float32) for _ in "kv")
    ones = key.new_ones(groups, tokens, PARTS)
    keys, values = torch.cat([key[0], ones], -1), torch.cat([value[0], ones], -1)
    for start in range(0, tokens, QUERIES):
        end = min(start + QUERIES, tokens)
        asked = slice(start, end)
        shape = (groups, -1, size)
        q = query[0, :, asked].reshape(shape)
        above = upstream[0, :, asked].reshape(shape)
        less = _in_parts(logsumexp[0, :, asked].reshape(groups, -1) / -scale, q)
        sides = torch.cat([q, less], -1), keys[:, :end].mT
        weights = torch.baddbmm(q.new_zeros(1, 1, 1), *sides, beta=0, alpha=scale).exp_()
        weights.view(heads, -1, end).tril_(start)
        less = _in_parts(-delta[0, :, asked].reshape(groups, -1), q)
        scores = (torch.cat([above, less], -1) @ values[:, :end].mT).mul_(weights)
        for_value[:, :end] += weights.mT @ above
        for_key[:, :end] += scores.mT @ q
        for_query[0, :, asked] = (scores @ key[0, :, :end]).view(heads, -1, size).mul_(scale)
    return for_query, for_key.mul_(scale)[None], for_value[None]


def _in_parts(numbers: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Float32 numbers ``[..., n]`` as sums ``[..., n, PARTS]`` of numbers of a shorter type."""
    parts = []
    for _ in range(PARTS):
        parts.append(numbers.to(like.dtype))
        numbers = numbers - parts[-1]
    return torch.stack(parts, -1)
