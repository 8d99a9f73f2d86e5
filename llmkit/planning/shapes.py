"""The model of a training as shapes alone, chosen and quantised by the code that trains.

First on the meta device, where weights have a shape and no memory; then as tensors that say they
are on the CPU, so that autocast and attention choose what they choose there, and have no memory
either.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.quantizers.auto import AutoHfQuantizer

from llmkit.errors import UsageError
from llmkit.models import trained
from llmkit.models.attention import ROWS_ATTENTION
from llmkit.models.loading import (
    first_line,
    keep_4bit_weights_differentiable,
    quantization_config,
)
from llmkit.models.settings import Quantization
from llmkit.models.trained import TrainedModel
from llmkit.training.settings import LoraAdapter, TrainingConfig

NF4_BLOCK = 64
"""Weights that share one scale."""
SCALES_BLOCK = 256
"""Scales that share one scale of their own, when they are quantised in turn."""


def base_shapes(folder: Path, quantization: Quantization, dtype: torch.dtype) -> PreTrainedModel:
    """A frozen base on the meta device, as `llmkit.models.loading.load_base` would load it.

    Raises:
        UsageError: the folder is no causal language model.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                config, dtype=dtype, attn_implementation=ROWS_ATTENTION
            )
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"{folder}: cannot be planned as a causal language model: {first_line(error)}"
        ) from error
    model.tie_weights()
    settings = quantization_config(quantization, dtype)
    if settings:
        quantizer = AutoHfQuantizer.from_config(settings, pre_quantized=False)
        quantizer.preprocess_model(model=model, device_map={"": "cpu"})
        for module in model.modules():
            _quantize_shape(module, dtype)
    model.requires_grad_(requires_grad=False)
    model.eval()
    keep_4bit_weights_differentiable(model)
    return model  # type: ignore[no-any-return]


def trained_shapes(
    base: PreTrainedModel, config: TrainingConfig, new_tokens: list[int], dtype: torch.dtype
) -> TrainedModel:
    """What trains of a base on the meta device, chosen by `llmkit.models.trained`."""
    adapter = config.adapter
    if isinstance(adapter, LoraAdapter) and adapter.init == "pissa":
        adapter = adapter.model_copy(update={"init": "zero"})  # other values, the same shapes
    if config.gradient_checkpointing:
        base.enable_input_require_grads()
    with torch.device("meta"):
        return trained.make_trainable(
            base, adapter, config.seed, new_tokens, dtype=dtype, initial=Path()
        )


def base_tensors(base: nn.Module) -> dict[str, list[torch.Tensor]]:
    """The base's weights and what belongs to them, by how they are held.

    Returns:
        ``quantized`` (with their scales), ``scales`` among them, and ``plain``.
    """
    found: dict[str, list[torch.Tensor]] = {"quantized": [], "scales": [], "plain": []}
    for parameter in base.parameters():
        if parameter.is_floating_point():
            found["plain"].append(parameter)
        else:
            found["quantized"].append(parameter)
            found["scales"] += list(_scales(parameter))
    return found


def without_memory(model: nn.Module, mode: FakeTensorMode) -> None:
    """Replace every meta tensor of a model, in place, by one that says it is on the CPU."""
    made: dict[int, torch.Tensor] = {}

    def like(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            with mode, torch.no_grad():
                new: Any = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
                if isinstance(tensor, nn.Parameter):
                    new = nn.Parameter(new, requires_grad=tensor.requires_grad)
            _carry_quantization(tensor, new, like)
            made[id(tensor)] = new
        return made[id(tensor)]

    for module in model.modules():
        for own in (module._parameters, module._buffers):
            for name, tensor in own.items():
                if tensor is not None:
                    own[name] = like(tensor)  # type: ignore[assignment]
        if hasattr(module, "original_inv_freq"):  # rotary embeddings keep a second reference
            module.original_inv_freq = module.inv_freq


def _quantize_shape(module: nn.Module, dtype: torch.dtype) -> None:
    """Give a layer that bitsandbytes replaced the weight that quantising would leave."""
    from bitsandbytes.functional import QuantState
    from bitsandbytes.nn import modules as layers

    def meta(*shape: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    if isinstance(module, layers.Linear4bit):
        out, width = module.out_features, module.in_features
        blocks = -(-out * width // NF4_BLOCK)
        scales = QuantState(
            meta(-(-blocks // SCALES_BLOCK), dtype=torch.float32),
            code=meta(256, dtype=torch.float32),
            blocksize=SCALES_BLOCK,
            dtype=torch.float32,
        )
        state = QuantState(
            meta(blocks, dtype=torch.uint8),
            shape=torch.Size((out, width)),
            code=meta(16, dtype=torch.float32),
            blocksize=NF4_BLOCK,
            quant_type="nf4",
            dtype=dtype,
            offset=meta(dtype=torch.float32),
            state2=scales,
        )
        module.weight = layers.Params4bit(
            meta(-(-out * width // 2), 1, dtype=torch.uint8),
            quant_state=state,
            quant_type="nf4",
            module=module,
            bnb_quantized=True,
        )
        module.quant_state = state
    elif isinstance(module, layers.Linear8bitLt):
        module.state.threshold = 0.0  # how many outlier columns there are depends on values
        data = meta(module.out_features, module.in_features, dtype=torch.int8)
        scale = meta(module.out_features, dtype=torch.float32)
        module.weight = layers.Int8Params(
            data, requires_grad=False, has_fp16_weights=False, CB=data, SCB=scale
        )


def _scales(parameter: Any) -> Iterator[torch.Tensor]:
    state = getattr(parameter, "quant_state", None)
    if state is not None:
        yield from (state.absmax, state.code, state.state2.absmax, state.state2.code)
    elif getattr(parameter, "SCB", None) is not None:
        yield parameter.SCB


def _carry_quantization(old: Any, new: Any, like: Any) -> None:
    """Give a new weight the scales of the old one, and the class that libraries look at."""
    state = getattr(old, "quant_state", None)
    if state is not None:
        for each in (state, state.state2):
            each.absmax, each.code = like(each.absmax), like(each.code)
        state.offset = like(state.offset)
        new.quant_state, new.bnb_quantized = state, True
        new.__class__ = type("Params4bit", (type(new),), {})
    elif getattr(old, "SCB", None) is not None:
        new.CB, new.SCB, new.has_fp16_weights = new, like(old.SCB), False
        new.__class__ = type("Int8Params", (type(new),), {})
