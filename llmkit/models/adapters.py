"""Low-rank adapters: attached, checked, saved, loaded."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from llmkit.errors import UsageError
from llmkit.models.scoring import has_score
from llmkit.training.settings import LoraAdapter


def attach(
    model: PreTrainedModel, config: LoraAdapter, seed: int, new_tokens: Sequence[int] = ()
) -> PeftModel:
    """Put trainable low-rank updates beside the frozen linear layers.

    Args:
        model: a frozen base. PiSSA takes its largest singular directions out of its weights.
        config: rank, scale, targets.
        seed: decides the random half of every adapter; the other half starts at zero, so
            the tuned model starts as the base.
        new_tokens: ids whose rows of the embeddings, and of the head, train as well.

    Raises:
        UsageError: the targets match no layer (the nearest names are given), the rank is above
            the smallest dimension of a layer, or the base cannot be started from in this way.
    """
    layers = _targeted(model, config)
    saved = list(config.modules_to_save)
    _check_rank(layers, config.rank)
    _check_start(layers, config)
    _check_saved(model, saved)
    rows = _token_rows(model, new_tokens, saved)
    torch.manual_seed(seed)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        use_rslora=config.rslora,
        use_dora=config.dora,
        init_lora_weights="pissa" if config.init == "pissa" else True,
        target_modules=_as_peft_names(config, layers),
        modules_to_save=saved or None,
        trainable_token_indices=rows,
        ensure_weight_tying=bool(saved or rows) and _is_tied(model),
        # A reward model's score trains whole beside its adapters: PEFT adds it to what it saves.
        task_type="SEQ_CLS" if has_score(model) else "CAUSAL_LM",
    )
    tuned = get_peft_model(model, lora)
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return tuned


def base_of(model: Any) -> PreTrainedModel:
    """The causal language model inside a PEFT wrapper, adapters included; itself without one."""
    return cast(
        "PreTrainedModel", model.get_base_model() if isinstance(model, PeftModel) else model
    )


START = "initial_adapter"
"""The folder, beside the checkpoints, of what adapters started as where that is not nothing."""


def note_start(model: PeftModel, folder: Path) -> None:
    """Keep what a PiSSA adapter starts as: what it learned is its difference from that."""
    config: Any = model.peft_config["default"]
    init, config.init_lora_weights = config.init_lora_weights, True
    model.save_pretrained(str(folder / START))
    config.init_lora_weights = init


def save(
    model: PeftModel,
    folder: Path,
    base_name: str,
    initial: Path,
    gathered: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write an adapter of the base as it is; its files name the base as the person does.

    A PiSSA adapter belongs to a base without its largest directions, which nobody else has: it is
    written as the difference from its start, an ordinary adapter of twice the rank.
    """
    start = str(initial / START) if (initial / START).is_dir() else None
    model.save_pretrained(
        str(folder), path_initial_model_for_weight_conversion=start, state_dict=gathered
    )
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base_name
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "README.md").unlink(missing_ok=True)  # a model card template that nobody filled in


def load(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Put a saved adapter on a base, frozen, in evaluation mode."""
    tuned = PeftModel.from_pretrained(model, folder)  # its weights stay float32, as trained
    tuned.eval()
    return tuned


def _linear_layers(model: PreTrainedModel) -> dict[str, torch.nn.Linear]:
    """Every linear layer but the head or the score, by its path."""
    heads = [model.get_output_embeddings(), getattr(model, "score", None)]
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and not any(module is head for head in heads)
    }


def _matches(target: str, name: str) -> bool:
    """Whether a target means a layer: its name or the end of its path, or a pattern of all of it.

    Raises:
        UsageError: it has a pattern's signs and is none.
    """
    if _is_name(target):
        return name == target or name.endswith(f".{target}")
    try:
        return re.fullmatch(target, name) is not None
    except re.error as error:
        raise UsageError(
            f"training.adapter.targets: {target!r} is not a regular expression: {error}."
        ) from None


def _targeted(model: PreTrainedModel, config: LoraAdapter) -> dict[str, torch.nn.Linear]:
    linear = _linear_layers(model)
    if config.targets == "all-linear":
        return linear
    for target in config.targets:
        if not any(_matches(target, name) for name in linear):
            ends = sorted({name.rpartition(".")[2] for name in linear})
            near = difflib.get_close_matches(target, ends, n=1) or ends
            raise UsageError(
                f"training.adapter.targets: {target!r} matches no linear layer of this model. "
                f"Nearest: {', '.join(near)}."
            )
    return {
        name: layer
        for name, layer in linear.items()
        if any(_matches(target, name) for target in config.targets)
    }


def _as_peft_names(config: LoraAdapter, layers: Mapping[str, Any]) -> str | list[str]:
    """Targets as PEFT takes them; where there is a pattern, the paths that it means."""
    if config.targets == "all-linear" or all(map(_is_name, config.targets)):
        return config.targets
    return list(layers)


def _is_name(target: str) -> bool:
    return re.fullmatch(r"[\w.]+", target) is not None


def _check_rank(layers: Mapping[str, torch.nn.Linear], rank: int) -> None:
    if not layers:
        raise UsageError(
            "training.adapter: this model has no linear layers for adapters (GPT-2's are of another"
            " kind). Train its last layers or all weights: training.adapter.kind=freeze or full."
        )
    name, smallest = min(
        ((name, min(m.in_features, m.out_features)) for name, m in layers.items()),
        key=lambda each: each[1],
    )
    if rank > smallest:
        raise UsageError(
            f"training.adapter.rank: {rank} is above {smallest}, the smallest dimension of "
            f"{name}; a higher rank cannot add anything there."
        )


def _check_start(layers: Mapping[str, torch.nn.Linear], config: LoraAdapter) -> None:
    if config.init == "pissa" and not all(m.weight.is_floating_point() for m in layers.values()):
        raise UsageError(
            "training.adapter.init=pissa takes singular directions out of the base's weights, and "
            "these are quantised. Set model.quantization=none, or init=zero."
        )


def _check_saved(model: PreTrainedModel, saved: Sequence[str]) -> None:
    """Layers to train whole must be there, and not quantised."""
    modules = {name: module for name, module in model.named_modules() if name}
    for wanted in saved:
        found = [m for name, m in modules.items() if name == wanted or name.endswith(f".{wanted}")]
        if not found:
            ends = sorted({name.rpartition(".")[2] for name in modules} - set("0123456789"))
            near = difflib.get_close_matches(wanted, ends, n=1) or ["embed_tokens", "lm_head"]
            raise UsageError(
                f"training.adapter.modules_to_save: this model has no {wanted!r}. "
                f"Nearest: {', '.join(near)}."
            )
        if not all(p.is_floating_point() for module in found for p in module.parameters()):
            raise UsageError(
                f"training.adapter.modules_to_save: {wanted!r} is quantised, and quantised weights "
                "cannot train. Set model.quantization=none, or leave it to the adapters."
            )


def _embedding_names(model: PreTrainedModel) -> dict[str, str]:
    """What the embeddings and the head are called: role -> the last part of their path."""
    roles = {
        "embeddings": model.get_input_embeddings(),
        "head": model.get_output_embeddings(),
    }
    names = {id(module): name.rpartition(".")[2] for name, module in model.named_modules()}
    return {role: names[id(module)] for role, module in roles.items() if module is not None}


def _is_tied(model: PreTrainedModel) -> bool:
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def _token_rows(
    model: PreTrainedModel, tokens: Sequence[int], saved: Sequence[str]
) -> dict[str, list[int]] | None:
    """Rows of the embeddings, and of a head of its own, that train: name of the layer -> ids."""
    names = _embedding_names(model)
    if _is_tied(model):
        names.pop("head", None)
    rows = {name: list(tokens) for name in names.values() if name not in saved}
    return rows if tokens and rows else None
