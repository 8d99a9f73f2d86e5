"""The gated product of a feed-forward layer, of which only its two factors are kept.

Autograd would keep the activated gate as well, as wide as the layer; it is one pass to make again.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.functional import silu

from llmkit.training.kernels.candidates import Candidate

PLAIN = "returnself.down_proj(self.act_fn(self.gate_proj(x))*self.up_proj(x))"
NAMED = "down_proj=self.down_proj(self.act_fn(self.gate_proj(x))*self.up_proj(x))returndown_proj"
"""How transformers' models write it, without spaces."""


class _GatedSilu(torch.autograd.Function):
    """``silu(gate) * up``."""

    @staticmethod
    def forward(context: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """Shapes are equal, and the result's."""
        context.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        """Both factors' gradients."""
        gate, up = context.saved_tensors
        for_gate = torch.ops.aten.silu_backward(gradients[0] * up, gate)
        return for_gate, silu(gate).mul_(gradients[0])


def gates(model: nn.Module) -> Iterator[Candidate]:
    """Every feed-forward layer of gate, up and down with SiLU, with a forward that keeps less."""
    for module in model.modules():
        parts: dict[str, Any] = dict(module.named_children())
        if set(parts) == {"gate_proj", "up_proj", "down_proj", "act_fn"}:
            act = parts["act_fn"]
            if type(act).__name__ in ("SiLU", "SiLUActivation") and _is_plain(module):
                widths = (parts["gate_proj"].in_features, parts["gate_proj"].out_features)
                yield Candidate("gate", module, widths, _forward(module))


def _is_plain(module: nn.Module) -> bool:
    """Whether a layer says in so many words that it computes this: some clamp, late or seldom."""
    try:
        source = inspect.getsource(type(module).forward)
    except (OSError, TypeError):
        return False
    return re.sub(r"\s+", "", source).endswith(PLAIN) or re.sub(r"\s+", "", source).endswith(NAMED)


def _forward(module: Any) -> Callable[..., Any]:
    def forward(x: torch.Tensor) -> Any:
        gated = _GatedSilu.apply(module.gate_proj(x), module.up_proj(x))  # type: ignore[no-untyped-call]
        return module.down_proj(gated)

    return forward
