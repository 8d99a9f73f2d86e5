"""LoRA as one product a layer: with the weights that merging would give.

PEFT computes ``x W' + s (x A') B'``: two thin products more a layer, which run at a fraction of the
speed of a wide one, casts of ``x`` to the adapter's type and back, and a sum as wide as the output;
all of it is kept for the backward pass. Here the update is added to the weight first, which costs
``out * rank * in`` and not ``tokens`` times that:

    forward     W* = W + s B A                     y  = x W*'
    backward    W* again, nothing of it is kept    dx = dy W*
                thin products alone                dB = s dy' (x A'),  dA = s (dy B)' x

So training computes with what is served: the merged weights in the type of the computation. The
adapter itself stays float32. A 4-bit weight is dequantised into ``W*``, once a pass.
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


class _MergedLinear(torch.autograd.Function):
    """``x`` times the merged weight; gradients for ``x``, ``A`` and ``B``."""

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
        context.save_for_backward(x, a, b)
        context.weight, context.scale = weight, scale
        return linear(x, merged_weight(weight(), a, b, scale), bias)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        """Thin products for the adapter, one wide one for ``x``."""
        x, a, b = context.saved_tensors
        out = gradients[0].reshape(-1, b.shape[0])
        rows = x.reshape(-1, a.shape[1])
        thin_a, thin_b = a.to(out.dtype), b.to(out.dtype)
        through_a = (rows @ thin_a.T) * context.scale
        through_b = (out @ thin_b) * context.scale
        for_b = (out.T @ through_a).to(b.dtype)
        for_a = (through_b.T @ rows).to(a.dtype)
        for_x = None
        if context.needs_input_grad[0]:
            for_x = (out @ merged_weight(context.weight(), a, b, context.scale)).reshape(x.shape)
        return for_x, for_a, for_b, None, None, None


def merged_weight(
    weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float
) -> torch.Tensor:
    """``weight + scale * b @ a`` in the type of ``weight``, summed in float32, rounded once."""
    return torch.addmm(weight, b.to(weight.dtype), a.to(weight.dtype), alpha=scale)


def merged_layers(model: nn.Module, dtype: torch.dtype) -> Iterator[Candidate]:
    """Every plain LoRA layer of a model, with a forward that computes with its merged weight.

    Layers with dropout, DoRA, or anything but one adapter keep PEFT's own way: dropout acts
    between ``x`` and ``A``, which a merged weight does not have.

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
        return _MergedLinear.apply(x.to(dtype), a, b, weight, bias, layer.scaling[name])  # type: ignore[no-untyped-call]

    return forward
