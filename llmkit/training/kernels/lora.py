"""LoRA whose thin products are added where the wide one was written, and which keeps little.

PEFT computes ``x W' + s (x A') B'`` with casts of ``x`` to the adapter's type and back, a sum as
wide as the output, and a copy of all of it for the backward pass. Here:

    forward     y  = x W',   t  = x A',       y  += s t B'       kept: x and t
    backward    dx = dy W,   t' = s dy B,     dx += t' A
                             dB = s dy' t,    dA = t'' x

A 4-bit weight is dequantised once a pass. Every product is rounded where PEFT rounds it. Adding
``s B A`` to the weight first would be as fast for many tokens and slower for few, and rounds the
update once for all tokens, in the same direction.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.nn.functional import linear

from llmkit.training.kernels.candidates import Candidate

Weight = Callable[[], torch.Tensor]
"""The frozen weight in the type of the computation, ``[out, in]``."""


class _LoraLinear(torch.autograd.Function):
    """``x W' + s (x A') B'``; gradients for ``x``, ``A`` and ``B``."""

    @staticmethod
    def forward(
        context: Any,
        x: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        weight: Weight,
        bias: torch.Tensor | None,
        scale: float,
    ) -> torch.Tensor:
        """Shapes: x ``[..., in]``, a ``[rank, in]``, b ``[out, rank]``; returns ``[..., out]``."""
        y = linear(x, weight(), bias)
        thin = x.reshape(-1, a.shape[1]) @ a.to(x.dtype).T
        y.view(-1, b.shape[0]).addmm_(thin, b.to(x.dtype).T, alpha=scale)
        context.save_for_backward(x, thin, a, b)
        context.weight, context.scale = weight, scale
        return y

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        """Thin products for the adapter, one wide one for ``x``."""
        x, thin, a, b = context.saved_tensors
        out = gradients[0].reshape(-1, b.shape[0])
        through = (out @ b.to(out.dtype)).mul_(context.scale)
        for_b = (out.T @ thin).to(b.dtype).mul_(context.scale)
        for_a = (through.T @ x.reshape(-1, a.shape[1])).to(a.dtype)
        for_x = None
        if context.needs_input_grad[0]:
            for_x = (out @ context.weight()).addmm_(through, a.to(out.dtype)).view(x.shape)
        return for_x, for_a, for_b, None, None, None


def lora_layers(model: nn.Module, dtype: torch.dtype) -> Iterator[Candidate]:
    """Every plain LoRA layer of a model, with a forward that keeps less.

    Layers with dropout, DoRA, or anything but one adapter keep PEFT's own way.

    Args:
        model: with adapters attached.
        dtype: of the computation.
    """
    for layer in model.modules():
        if not isinstance(layer, LoraLayer) or not _is_plain(layer):
            continue
        base: Any = layer.get_base_layer()
        weight = _frozen_weight(base, dtype)
        if weight is not None:
            shape = (base.in_features, base.out_features)
            yield Candidate("lora", layer, shape, _forward(layer, weight, dtype))


def _is_plain(layer: LoraLayer) -> bool:
    names = list(layer.lora_A)
    return (
        len(names) == 1
        and isinstance(layer.get_base_layer(), nn.Linear)
        and isinstance(layer.lora_dropout[names[0]], nn.Identity)
        and names[0] not in layer.lora_variant
        and not layer.lora_bias.get(names[0])
    )


def _frozen_weight(layer: Any, dtype: torch.dtype) -> Weight | None:
    """How to get at a layer's weight; None for kinds that are not known."""
    if type(layer) is nn.Linear:
        return lambda: layer.weight.to(dtype)
    from bitsandbytes import functional
    from bitsandbytes.nn.modules import Linear4bit

    if not isinstance(layer, Linear4bit):
        return None

    def dequantized() -> torch.Tensor:
        held: Any = layer.weight
        found: torch.Tensor = functional.dequantize_4bit(held.data, held.quant_state)
        return found.to(dtype)

    return dequantized


def _forward(layer: Any, weight: Weight, dtype: torch.dtype) -> Callable[..., Any]:
    own = layer.forward
    name = next(iter(layer.lora_A))

    def forward(x: torch.Tensor, *rest: Any, **named: Any) -> Any:
        if rest or named or layer.disable_adapters or layer.merged:
            return own(x, *rest, **named)
        a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
        bias = layer.get_base_layer().bias
        bias = None if bias is None else bias.to(dtype)
        return _LoraLinear.apply(x.to(dtype), a, b, weight, bias, layer.scaling[name])  # type: ignore[no-untyped-call]

    return forward
