"""Causal attention row by row on a CPU, its backward written into place.

Autograd would make a gradient as long as the pack for every row, nearly all of it zeros, and add
them up; and it would join the rows' outputs once more. Both grow with rows times tokens.

In bfloat16 the backward is five matrix products for some queries at a time, which on a CPU take
half the time of torch's own kernel. Rounded scores would be too coarse for ``exp(score - sum)``: at
40 a bfloat16 is off by up to 0.125. So what is subtracted goes into the product, as further columns
of its sides, and only the difference is rounded, which matters least where the weight is largest.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

QUERIES = 256
"""How many have their weights at once: with 9 heads and 1,024 keys, 4.5 MiB."""
STEP = 16
"""Rows are computed as if their lengths were multiples of it, with what comes after them.

oneDNN prepares code for every shape that it meets, which takes longer than a product, and keeps it:
a training on rows of many lengths would grow by gigabytes."""
PARTS = 3
"""bfloat16 numbers that together are a float32: 8 bits of it each."""
FURTHER = 8
"""Columns added for them, so that rows begin at multiples of 16 bytes."""


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
            part = slice(start, _rounded(end - start) + start)  # no token sees what is after it
            row, logsumexp = _forward(
                query[:, :, part], key[:, :, part], value[:, :, part], is_causal=True, scale=scale
            )
            out[:, start:end] = row[:, :, : end - start].transpose(1, 2)
            sums.append(logsumexp[..., : end - start])
        context.save_for_backward(query, key, value, out, *sums)
        context.row_starts, context.scale = row_starts, scale
        return out

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        """Every row's gradients, in their place."""
        query, key, value, out, *sums = context.saved_tensors
        of_pack = _by_products if query.dtype == torch.bfloat16 else _by_torch
        found = of_pack(
            gradients[0], query, key, value, out, sums, context.row_starts, context.scale
        )
        return (*found, None, None)


def _by_torch(
    upstream: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    sums: Sequence[torch.Tensor],
    row_starts: Sequence[int],
    scale: float | None,
) -> Sequence[torch.Tensor]:
    """Gradients of query, key and value, by torch's kernel."""
    found = [torch.empty_like(each) for each in (query, key, value)]
    for (start, end), logsumexp in zip(pairwise(row_starts), sums, strict=True):
        part = slice(start, end)
        rows = _backward(
            upstream[:, part].transpose(1, 2),
            query[:, :, part],
            key[:, :, part],
            value[:, :, part],
            out[:, part].transpose(1, 2),
            logsumexp,
            dropout_p=0.0,
            is_causal=True,
            scale=scale,
        )
        for whole, row in zip(found, rows, strict=True):
            whole[:, :, part] = row
    return found


def _by_products(
    upstream: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    sums: Sequence[torch.Tensor],
    row_starts: Sequence[int],
    scale: float | None,
) -> Sequence[torch.Tensor]:
    """Gradients of query, key and value; query heads that share a key head are one product.

        weights = exp(scale q k' - logsumexp)          d value = weights' upstream
        d scores = weights (upstream value' - delta)   d query = scale (d scores) k
        delta = sum(upstream out)                      d key = scale (d scores)' q

    Every product is made a little longer than its row, up to a multiple of `STEP`, and what the
    next row has there is set to zero.
    """
    _, heads, tokens, size = query.shape
    groups = key.shape[1]
    scale = size**-0.5 if scale is None else scale

    def with_parts(of_heads: torch.Tensor, less: torch.Tensor) -> torch.Tensor:
        """``[1, heads, tokens, size]`` and ``[heads, tokens]``, side by side."""
        whole = of_heads.new_zeros(heads, tokens + STEP, size + FURTHER)
        whole[:, :tokens, :size] = of_heads[0]
        whole[:, :tokens, size : size + PARTS] = _in_parts(less, of_heads.dtype)
        return whole

    def with_ones(of_groups: torch.Tensor) -> torch.Tensor:
        whole = of_groups.new_zeros(groups, tokens + STEP, size + FURTHER)
        whole[:, :tokens, :size] = of_groups[0]
        whole[:, :tokens, size : size + PARTS] = 1
        return whole

    delta = (upstream.float() * out).sum(-1)[0].T
    above = with_parts(upstream.transpose(1, 2), -delta)
    queries = with_parts(query, torch.cat(list(sums), -1)[0] / -scale)
    keys, values = with_ones(key), with_ones(value)
    for_query = torch.empty_like(query)
    for_key, for_value = (torch.zeros_like(keys, dtype=torch.float32) for _ in "kv")
    nothing = queries.new_zeros(1, 1, 1)
    for first, end, count in _blocks(row_starts):
        long = _rounded(count)
        start = end - count
        asked, seen = slice(start, start + long), slice(first, start + long)
        q, g = (each[:, asked].reshape(groups, -1, size + FURTHER) for each in (queries, above))
        k, v = keys[:, seen], values[:, seen]
        weights = torch.baddbmm(nothing, q, k.mT, beta=0, alpha=scale).exp_()
        by_head = weights.view(heads, long, -1).tril_(start - first)
        by_head[:, count:] = 0
        scores = (g @ v.mT).mul_(weights)
        for_value[:, seen] += weights.mT @ g
        for_key[:, seen] += scores.mT @ q
        for_query[0, :, start:end] = (scores @ k).view(heads, long, -1)[:, :count, :size]
    return (
        for_query.mul_(scale),
        for_key[None, :, :tokens, :size].mul(scale).to(key.dtype),
        for_value[None, :, :tokens, :size].to(value.dtype),
    )


def _rounded(count: int) -> int:
    """The next multiple of `STEP`."""
    return -(-count // STEP) * STEP


def _blocks(row_starts: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """The first token of a row, where some queries of it end, and how many they are."""
    for start, end in pairwise(row_starts):
        for begin in range(start, end, QUERIES):
            stop = min(begin + QUERIES, end)
            yield start, stop, stop - begin


def _in_parts(numbers: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Float32 numbers ``[..., n]`` as sums ``[..., n, PARTS]`` of numbers of a shorter type."""
    parts = []
    for _ in range(PARTS):
        parts.append(numbers.to(dtype))
        numbers = numbers - parts[-1]
    return torch.stack(parts, -1)
