"""What of a model trains, and how that is kept: adapters, or weights themselves.

Whichever it is, training is given one model, and leaves one small or large folder that `load` puts
on the same base again:

    lora     adapter_model.safetensors     updates, and layers and rows trained whole beside them
    freeze   trained_weights.safetensors   the last layers
    full     trained_weights.safetensors   every weight

Weights that train are float32 whatever the base is held in: bfloat16 would round away updates
below a 256th of a weight.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from llmkit.errors import UsageError
from llmkit.files import write_json
from llmkit.models import adapters
from llmkit.models.scoring import score_parameters
from llmkit.models.settings import Quantization
from llmkit.models.weight_files import read_heads
from llmkit.training import processes
from llmkit.training.settings import AdapterConfig, Freeze, LoraAdapter

TrainedModel = PreTrainedModel | PeftModel
"""A base whose own weights train, or one with adapters around it."""
WEIGHTS = "trained_weights.safetensors"
"""Weights that were trained themselves, by their names in the base."""
WEIGHTS_CONFIG = "trained_weights.json"
"""Names the base that they replace weights of."""


def make_trainable(
    base: PreTrainedModel,
    config: AdapterConfig,
    seed: int,
    new_tokens: Sequence[int],
    *,
    dtype: torch.dtype,
    initial: Path,
) -> TrainedModel:
    """Choose what trains.

    Args:
        base: a frozen base; its weights are changed to float32 where they train.
        config: adapters, the last layers, or all.
        seed: decides the random half of every adapter.
        new_tokens: ids whose embeddings train under adapters too, as rows.
        dtype: of frozen weights.
        initial: a folder to note in what adapters start as, where it is not nothing (PiSSA).

    Returns:
        The model to train: a PEFT wrapper for adapters, the base itself otherwise.

    Raises:
        UsageError: the model does not have what was asked to train.
    """
    if isinstance(config, LoraAdapter):
        model = adapters.attach(base, config, seed, new_tokens)
        if config.init == "pissa" and processes.is_first():
            adapters.note_start(model, initial)
        return model
    chosen = _last_layers(base, config) if isinstance(config, Freeze) else base.parameters()
    for parameter in [*chosen, *score_parameters(base)]:
        if not parameter.is_floating_point():
            raise UsageError(
                f"training.adapter.kind={config.kind}: the base is quantised, and quantised "
                "weights cannot train. Set model.quantization=none, or train an adapter."
            )
        parameter.data = parameter.data.float()
        parameter.requires_grad_()
    for parameter in base.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    return base


def base_dtype(
    config: AdapterConfig, quantization: Quantization, dtype: torch.dtype, folder: Path
) -> torch.dtype:
    """The type to load a base in: weights that train must not have been rounded on the way."""
    if isinstance(config, LoraAdapter) or quantization != "none":
        return dtype
    files = read_heads(folder)
    as_stored = files is not None and files.dtypes == {str(dtype).removeprefix("torch.")}
    return dtype if as_stored else torch.float32


def save(
    model: nn.Module,
    folder: Path,
    base_name: str,
    initial: Path,
    gathered: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write what was trained; its files name the base as the person does, not by a local path.

    Args:
        model: as `make_trainable` made it.
        folder: an empty folder.
        base_name: what the recipe calls the base.
        initial: the folder that `make_trainable` was given.
        gathered: what trained, where the model itself holds a share of it only.
    """
    if isinstance(model, PeftModel):
        adapters.save(model, folder, base_name, initial, gathered)
        return
    own = {name: p.data for name, p in model.named_parameters() if p.requires_grad}
    trained = own if gathered is None else gathered
    save_file(trained, folder / WEIGHTS)
    write_json(folder / WEIGHTS_CONFIG, {"base_model_name_or_path": base_name})


def load(model: PreTrainedModel, folder: Path) -> TrainedModel:
    """Put what was trained on a base, frozen, in evaluation mode.

    Raises:
        UsageError: the weights are not those of this base.
    """
    if not (folder / WEIGHTS).is_file():
        return adapters.load(model, folder)
    own = dict(model.named_parameters())
    with safe_open(folder / WEIGHTS, "pt") as file:
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            weight = file.get_tensor(name)
            if name not in own or own[name].shape != weight.shape:
                raise UsageError(
                    f"{folder}: was trained on another model: {name}, of shape "
                    f"{list(weight.shape)}, is not in this one."
                )
            own[name].data = weight.to(own[name].device)
    model.eval()
    return model


def figures(model: nn.Module) -> dict[str, Any]:
    """Which parameters train, how many, and in which type.

    Layers of one kind are one line, with ``*`` for their number in the stack.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    kinds: dict[str, dict[str, int]] = {}
    for name, parameter in trainable.items():
        kind = re.sub(r"\.\d+\.", ".*.", name.removeprefix("base_model.model."))
        counts = kinds.setdefault(kind.replace(".default", ""), {"tensors": 0, "parameters": 0})
        counts["tensors"] += 1
        counts["parameters"] += parameter.numel()
    return {
        "trainable_parameters": sum(p.numel() for p in trainable.values()),
        "trainable_tensors": len(trainable),
        "trainable_dtype": sorted(
            {str(p.dtype).removeprefix("torch.") for p in trainable.values()}
        ),
        "trains": kinds,
    }


def _last_layers(base: PreTrainedModel, config: Freeze) -> Iterator[nn.Parameter]:
    decoder = base.get_decoder()
    stacks = [module for module in decoder.children() if isinstance(module, nn.ModuleList)]
    layers = max(stacks, key=len, default=None)
    if layers is None or config.layers > len(layers):
        raise UsageError(
            f"training.adapter.layers: {config.layers} of {len(layers or [])} layers. Say at most "
            "that many, or adapter.kind=full to train every weight."
        )
    if config.layers:
        yield from (p for layer in layers[-config.layers :] for p in layer.parameters())
        norms = [m for m in decoder.children() if "norm" in type(m).__name__.lower()]
        yield from (p for norm in norms for p in norm.parameters())
    if config.embeddings:
        yield from base.get_input_embeddings().parameters()
    head = base.get_output_embeddings()
    if config.head and head is not None:
        yield from head.parameters()
