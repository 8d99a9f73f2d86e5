"""Low-rank adapters: attached, checked, saved, loaded."""

import difflib
import json
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from llmkit.errors import UsageError
from llmkit.training.settings import AdapterConfig


def attach(model: PreTrainedModel, config: AdapterConfig, seed: int) -> PeftModel:
    """Put trainable low-rank updates beside the frozen linear layers.

    The trainable weights are float32 whatever the base is held in: bfloat16 would round away
    updates below a 256th of a weight.

    Args:
        model: a frozen base.
        config: rank, scale, targets.
        seed: decides the random half of every adapter; the other half starts at zero, so
            the tuned model starts as the base.

    Raises:
        UsageError: the targets match no layer (the nearest names are given), or the rank is above
            the smallest dimension of a layer.
    """
    _check_targets(model, config)
    torch.manual_seed(seed)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        target_modules=config.targets,
        task_type="CAUSAL_LM",
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


def save(model: PeftModel, folder: Path, base_name: str) -> None:
    """Write an adapter; its files name the base as the person does, not by a local path."""
    model.save_pretrained(str(folder))
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


def trainable_figures(model: torch.nn.Module) -> dict[str, Any]:
    """How many parameters there are and train, and in which type.

    Quantised weights are stored several to a byte, so they are counted by the shape they stand for.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    return {
        "trainable_parameters": sum(p.numel() for p in trainable),
        "trainable_tensors": len(trainable),
        "trainable_dtype": sorted({str(p.dtype).removeprefix("torch.") for p in trainable}),
    }


def _check_targets(model: PreTrainedModel, config: AdapterConfig) -> None:
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not model.get_output_embeddings()
    }
    if config.targets == "all-linear":
        targeted = linear
    else:
        ends = sorted({name.rpartition(".")[2] for name in linear})
        for target in config.targets:
            if not any(name == target or name.endswith(f".{target}") for name in linear):
                near = difflib.get_close_matches(target, ends, n=1) or ends
                raise UsageError(
                    f"training.adapter.targets: {target!r} matches no linear layer of this model. "
                    f"Nearest: {', '.join(near)}."
                )
        targeted = {
            name: module
            for name, module in linear.items()
            if any(name == t or name.endswith(f".{t}") for t in config.targets)
        }
    smallest = min(min(m.in_features, m.out_features) for m in targeted.values())
    if config.rank > smallest:
        raise UsageError(
            f"training.adapter.rank: {config.rank} is above {smallest}, the smallest dimension of "
            "a targeted layer; a higher rank cannot add anything there."
        )
