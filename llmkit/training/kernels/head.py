"""How likely targets are, and what that says about hidden states, while their logits exist.

A vocabulary of 49,152 makes 192 kB of float32 logits for every position. So they exist for some
positions at a time, in one place in memory that is used again, and become their own gradient there.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import linear


@dataclass(frozen=True)
class HeadGradients:
    """Losses of targets, and their gradients."""

    losses: torch.Tensor
    """Float32 nats, shape ``[positions]``."""
    hidden: torch.Tensor | None
    """Row by row that of the row's own loss, ``[positions, width]``."""
    weight: torch.Tensor | None
    """That of the sum of all losses, float32, ``[vocabulary, width]``."""
    bias: torch.Tensor | None
    """That of the sum of all losses, float32, ``[vocabulary]``."""


@torch.no_grad()
def target_losses(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    *,
    dtype: torch.dtype,
    chunk: int,
    learns: tuple[bool, bool, bool] = (True, False, False),
) -> HeadGradients:
    """Cross-entropies of targets under a linear head, with gradients.

    Args:
        hidden: shape ``[positions, width]``.
        weight: the head's, shape ``[vocabulary, width]``.
        bias: the head's, shape ``[vocabulary]``, or None.
        targets: the tokens to be predicted, shape ``[positions]``.
        dtype: of products; sums and exponentials are float32 in any case.
        chunk: positions whose logits exist at once.
        learns: whether hidden states, weight and bias have gradients.
    """
    rows = hidden.to(dtype)
    held = weight.to(dtype)
    offset = None if bias is None else bias.to(dtype)
    losses = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
    for_hidden = torch.empty_like(rows) if learns[0] else None
    for_weight = torch.zeros_like(weight, dtype=torch.float32) if learns[1] else None
    for_bias = (
        torch.zeros_like(bias, dtype=torch.float32) if bias is not None and learns[2] else None
    )
    room = rows.new_empty(min(chunk, len(targets)), len(weight), dtype=torch.float32)
    for start in range(0, len(targets), chunk):
        part = slice(start, start + chunk)
        logits = linear(rows[part], held, offset)
        each = room[: len(logits)].copy_(logits)
        wanted = targets[part, None]
        largest = each.amax(-1, keepdim=True)
        target = each.gather(1, wanted)
        sums = each.sub_(largest).exp_().sum(-1, keepdim=True)
        losses[part] = (sums.log() + largest - target)[:, 0]
        if not any(learns):
            continue
        each.mul_(1 / sums)
        each.scatter_add_(1, wanted, each.new_full((1, 1), -1.0).expand(len(wanted), 1))
        gradient = logits.copy_(each)
        if for_hidden is not None:
            torch.mm(gradient, held, out=for_hidden[part])
        if for_weight is not None:
            for_weight += gradient.mT @ rows[part]
        if for_bias is not None:
            for_bias += each.sum(0)
    return HeadGradients(
        losses, None if for_hidden is None else for_hidden.to(hidden.dtype), for_weight, for_bias
    )
