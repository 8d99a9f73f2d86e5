"""Attention that keeps the rows of a pack apart, on any backend that has SDPA.

Rows lie one after another in one sequence. Each attends to itself only, causally, because its
attention is computed on its own slice: no mask of ``tokens x tokens`` is built, and there is
nothing a backend could ignore.

    pack        [ row 0 | row 1      | row 2 ]
    row_starts    0       7            18      25
    attention   causal    causal       causal       (never across a bar)
"""

from operator import sub
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from llmkit.models.one_call import MOST_SIZE, attention_in_one_call
from llmkit.models.rows_backward import RowsAttention

ROWS_ATTENTION = "llmkit_rows"


def rows_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    row_starts: list[int] | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each row of a pack.

    Args:
        module: the attention layer.
        query: shape ``[batch, heads, tokens, head_size]``.
        key: shape ``[batch, key_heads, key_tokens, head_size]``.
        value: as ``key``.
        attention_mask: unused with ``row_starts``; else None for plain causal attention.
        scaling: of the scores; 1/sqrt(head_size) by default.
        dropout: of the attention weights.
        row_starts: where each row begins, and the total, shape ``[rows + 1]``; batch must be 1.
            None: every sequence is one row; with a mask, the mask decides.
        sliding_window: tokens a token sees, itself included.
        softcap: not supported.

    Returns:
        Shape ``[batch, tokens, heads, head_size]``, and no weights.

    Raises:
        NotImplementedError: the model caps its scores (Gemma 2), which SDPA does not do.
    """
    if softcap is not None:
        raise NotImplementedError("attention with a soft cap (Gemma 2) is not supported")
    if row_starts is None and attention_mask is None and query.shape[2] == key.shape[2]:
        row_starts = [0, query.shape[2]]
    if row_starts is None:
        return _as_generating(query, key, value, attention_mask, dropout, scaling), None
    lengths = list(map(sub, row_starts[1:], row_starts))
    windowed = sliding_window is not None and max(lengths) > sliding_window
    if not windowed and not dropout:
        out = _by_own_kernel(query, key, value, row_starts, scaling)
        if out is not None:
            return out, None
    window = sliding_window if windowed else None
    return _row_by_row(query, key, value, lengths, dropout, scaling, window), None


def _as_generating(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    """The newest token sees all that came before it; with a mask, the mask decides."""
    is_causal = mask is None and query.shape[2] > 1
    key, value, grouped = _for_the_kernel(query, key, value, masked=mask is not None)
    out = scaled_dot_product_attention(
        query, key, value, mask, dropout, is_causal, scale=scaling, enable_gqa=grouped
    )
    return out.transpose(1, 2).contiguous()


def _by_own_kernel(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    row_starts: list[int],
    scaling: float | None,
) -> torch.Tensor | None:
    """All rows by a form made for packs, where there is one for this device and these heads."""
    if query.device.type == "cpu" and query.shape[3] == value.shape[3]:
        if torch.is_autocast_enabled("cpu"):  # as for torch's own, whose kernel this calls
            dtype = torch.get_autocast_dtype("cpu")
            query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        return RowsAttention.apply(query, key, value, row_starts, scaling)  # type: ignore[no-any-return, no-untyped-call]
    if query.device.type == "cuda":
        return attention_in_one_call(query, key, value, row_starts, scaling)
    return None


def _row_by_row(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: list[int],
    dropout: float,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """One call of torch's attention a row; ``window`` where one is shorter than a row."""
    key, value, grouped = _for_the_kernel(query, key, value, masked=window is not None)
    pieces = []
    # Split, not sliced: autograd would make a gradient as long as the pack for every slice.
    rows = zip(*(each.split(lengths, dim=2) for each in (query, key, value)), strict=True)
    for row_query, row_key, row_value in rows:
        mask = _window(row_query.shape[2], window, query.device)
        pieces.append(
            scaled_dot_product_attention(
                row_query,
                row_key,
                row_value,
                mask,
                dropout,
                mask is None,
                scale=scaling,
                enable_gqa=grouped,
            )
        )
    return torch.cat(pieces, dim=2).transpose(1, 2).contiguous()


def _for_the_kernel(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, masked: bool
) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Keys and values as a fast kernel takes them, and whether it is to share them among heads."""
    groups = query.shape[1] // key.shape[1]
    if groups == 1 or _shares_keys(query, masked=masked):
        return key, value, groups > 1
    return key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1), False


def _shares_keys(query: torch.Tensor, *, masked: bool) -> bool:
    """Whether a fast kernel reads a key's head for several of the query's.

    Of those for CUDA only FlashAttention does: in half precision, on Ampere and later, without a
    mask. Otherwise PyTorch would fall back on whole squares of scores.
    """
    if query.device.type != "cuda":
        return True
    is_cast = torch.is_autocast_enabled("cuda")
    dtype = torch.get_autocast_dtype("cuda") if is_cast else query.dtype
    fitting = dtype in (torch.bfloat16, torch.float16) and query.shape[3] <= MOST_SIZE
    return fitting and not masked and torch.cuda.get_device_capability(query.device) >= (8, 0)


def _window(tokens: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """A causal mask with a sliding window; None when the window covers the row."""
    if window is None or tokens <= window:
        return None
    reach = torch.ones(tokens, tokens, dtype=torch.bool, device=device)
    return reach.tril().triu(1 - window)


AttentionInterface.register(ROWS_ATTENTION, rows_attention)
