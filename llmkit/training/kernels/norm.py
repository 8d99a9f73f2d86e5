"""RMSNorm that keeps its input and one number a token for the backward pass, and nothing else.

Written as transformers write it, autograd keeps three float32 copies of the input.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from llmkit.training.kernels.candidates import Candidate


class _RmsNorm(torch.autograd.Function):
    """``weight * x / sqrt(mean(x^2) + epsilon)``, over the last dimension.

    Some models add 1 to their weights, or round elsewhere: comparing both finds them out.
    """

    @staticmethod
    def forward(
        context: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float
    ) -> torch.Tensor:
        """Shapes: x ``[..., width]``, weight ``[width]``; returns as x, in the type of x."""
        norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = norms.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        context.save_for_backward(x, weight, scale)
        normed: torch.Tensor = (x * scale).to(x.dtype)
        return normed.mul_(weight) if weight.dtype == x.dtype else normed * weight

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        """With n = x scale and g = dy weight: dx = scale (g - n mean(g n)), dweight = sum(dy n)."""
        x, weight, scale = context.saved_tensors
        normed = x * scale
        for_weight = None
        if context.needs_input_grad[1]:
            for_weight = (gradients[0] * normed).flatten(0, -2).sum(0).to(weight.dtype)
        through = (gradients[0] * weight).float()
        mean = torch.linalg.vecdot(through, normed).div_(x.shape[-1]).unsqueeze(-1)
        return through.addcmul_(normed, mean, value=-1).mul_(scale).to(x.dtype), for_weight, None


def norms(model: nn.Module) -> Iterator[Candidate]:
    """Every RMSNorm of a model, with a forward that keeps less."""
    for module in model.modules():
        weight, epsilon = getattr(module, "weight", None), _epsilon(module)
        if (
            type(module).__name__.endswith("RMSNorm")
            and isinstance(weight, torch.Tensor)
            and weight.ndim == 1
            and epsilon is not None
            and len(list(module.parameters())) == 1
        ):
            yield Candidate("norm", module, (len(weight),), _forward(module, epsilon))


def _epsilon(module: nn.Module) -> float | None:
    for name in ("variance_epsilon", "eps"):
        if isinstance(getattr(module, name, None), float):
            return float(getattr(module, name))
    return None


def _forward(module: Any, epsilon: float) -> Callable[..., Any]:
    return lambda x: _RmsNorm.apply(x, module.weight, epsilon)  # type: ignore[no-untyped-call]
