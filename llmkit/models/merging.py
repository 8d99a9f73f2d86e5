"""Write what was trained into the weights, and measure that the merged model is the trained one.

For a quantised base there are two ways to merge: into the 16-bit base, or into the weights that
training really saw, the dequantised ones. Both are measured against the adapter on the quantised
base, on real rows, and by default the closer one is kept.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel

from data_prep.prepared import Sample
from llmkit.errors import CheckFailed
from llmkit.models import adapters, trained
from llmkit.models.closeness import Closeness, compare, logits_on, preferences_on, some_rows
from llmkit.models.loading import (
    choose_device,
    load_base,
    load_scorer,
    quiet,
)
from llmkit.models.scoring import save_scorer
from llmkit.models.settings import MergeConfig, ModelConfig
from llmkit.models.trained import TrainedModel

SEEN = 0.01
"""Nats a token from which an adapter's effect stands out from bfloat16 rounding in the merge."""


@dataclass(frozen=True)
class ModelKind:
    """What differs between merging a language model and a reward model."""

    load: Callable[..., PreTrainedModel]
    """Given a folder, quantization and device."""
    predictions: Callable[[torch.nn.Module, Sequence[Sample]], Iterator[torch.Tensor]]
    """Logits of what the model decides on rows, ``[decisions, choices]``."""
    save: Callable[[PreTrainedModel, Path, Path, str, Sequence[int]], None]
    decides: str
    """What it makes a decision about, in the singular."""


def merge(
    config: MergeConfig,
    model_config: ModelConfig,
    model_folder: Path,
    result: Path,
    samples: Sequence[Sample],
    *,
    chat_template: str,
    stop_ids: Sequence[int],
    folder: Path,
    kind: ModelKind,
) -> dict[str, Any]:
    """Write the merged model, ready to be served.

    Args:
        config: type and target of the merge.
        model_config: how the base was held in training.
        model_folder: the base model.
        result: the folder that training left.
        samples: real rows to measure on.
        chat_template: the template's source, saved with the model; empty for none.
        stop_ids: tokens that end an assistant turn; the saved model stops on them.
        folder: an empty folder to write into.
        kind: ``LANGUAGE_MODEL`` or ``REWARD_MODEL``.

    Returns:
        Figures: the closeness of every merge that was tried, and which was kept.

    Raises:
        CheckFailed: the closest merge is further than ``max_divergence`` from what was trained, or
            there are no rows to measure on.
    """
    quiet()
    device = choose_device(model_config.device)
    rows = some_rows(samples)
    if not rows:
        raise CheckFailed(
            "there is no row to compare the merged with the trained model on: every one was cut "
            "before its answer. Raise data.max_tokens, or drop them: data.overlong=drop."
        )
    tuned = trained.load(
        kind.load(model_folder, quantization=model_config.quantization, device=device), result
    )
    reference = list(kind.predictions(tuned, rows))
    without = _without(tuned, model_folder, reference, rows, kind)
    dtype = getattr(torch, config.dtype)
    ways = (
        (target, merged_into(_base_for(target, model_folder, tuned, device, kind), result, dtype))
        for target in _targets(config, model_config)
    )
    target, merged, tried = _closest(ways, reference, rows, kind)
    _refuse_what_is_far(tried[target], without, config, kind)
    kind.save(merged, model_folder, folder, chat_template, stop_ids)
    return {
        "target": target,
        "dtype": config.dtype,
        "decisions": f"{kind.decides}s",
        "closeness": {target: asdict(found) for target, found in tried.items()},
        "kl_without_adapter": without,
        "rows": len(rows),
    }


def _closest(
    ways: Iterable[tuple[str, PreTrainedModel]],
    reference: Sequence[torch.Tensor],
    rows: Sequence[Sample],
    kind: ModelKind,
) -> tuple[str, PreTrainedModel, dict[str, Closeness]]:
    """The merged model that is nearest to what was trained, and how near each is.

    Of ``ways``, made one after the other, the nearest so far alone is kept in memory.
    """
    tried: dict[str, Closeness] = {}
    kept: tuple[str, PreTrainedModel] | None = None
    for target, merged in ways:
        tried[target] = compare(reference, merged, rows, kind.predictions)
        if kept is None or tried[target].kl < tried[kept[0]].kl:
            kept = (target, merged)
    if kept is None:
        raise CheckFailed("no merge target was tried")
    return *kept, tried


def _refuse_what_is_far(
    found: Closeness, without: float, config: MergeConfig, kind: ModelKind
) -> None:
    """Refuse a merged model that is not what was trained, or is as far as if nothing had been."""
    if not found.kl <= config.max_divergence:
        raise CheckFailed(
            f"the merged model is {found.kl:.4f} nats a {kind.decides} away from the trained "
            f"one (merge.max_divergence={config.max_divergence}) and decides "
            f"{found.top1_changed:.1%} of {kind.decides}s otherwise. Nothing was kept; what "
            "was trained is still in adapter/."
        )
    if without > SEEN and found.kl > without / 2:
        raise CheckFailed(
            f"the merged model is {found.kl:.4f} nats a {kind.decides} away from the trained "
            f"one, and the model before training {without:.4f}: merging lost what was trained. "
            "Nothing was kept; what was trained is still in adapter/."
        )


def _without(
    tuned: TrainedModel,
    model_folder: Path,
    reference: Sequence[torch.Tensor],
    rows: Sequence[Sample],
    kind: ModelKind,
) -> float:
    """How far the model is from what it was before it was trained, nats a token."""
    if isinstance(tuned, PeftModel):
        with tuned.disable_adapter():
            return compare(reference, tuned, rows, kind.predictions).kl
    base = kind.load(model_folder, quantization="none", device=tuned.device)
    return compare(reference, base, rows, kind.predictions).kl


def _targets(config: MergeConfig, model_config: ModelConfig) -> list[str]:
    if model_config.quantization == "none":
        return ["base"]
    return ["base", "dequantized"] if config.target == "closest" else [config.target]


def _base_for(
    target: str,
    model_folder: Path,
    tuned: TrainedModel,
    device: torch.device,
    kind: ModelKind,
) -> PreTrainedModel:
    base = kind.load(model_folder, quantization="none", device=device)
    if target == "dequantized":
        _copy_dequantized(adapters.base_of(tuned), base)
    return base


def _copy_dequantized(quantized: PreTrainedModel, base: PreTrainedModel) -> None:
    """Replace the weights of a 16-bit base by what the quantised one really computes with."""
    from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt

    plain = dict(base.named_modules())
    for name, layer in quantized.named_modules():
        if isinstance(layer, Linear4bit | Linear8bitLt):  # with an adapter or without
            weight = plain[name.removesuffix(".base_layer")].weight
            weight.data.copy_(_dequantized_weight(layer))


def _dequantized_weight(layer: Any) -> torch.Tensor:
    import bitsandbytes
    from bitsandbytes.nn.modules import Linear4bit

    weight = layer.weight
    if isinstance(layer, Linear4bit):
        found = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
    else:
        scale = weight.SCB if weight.SCB is not None else layer.state.SCB
        found = bitsandbytes.functional.int8_vectorwise_dequant(weight.data, scale)
    return found


def merged_into(base: PreTrainedModel, result: Path, dtype: torch.dtype) -> PreTrainedModel:
    """Write what was trained into a plain base, in float32, then round once.

    Args:
        base: a model that is not quantised; it is changed in place.
        result: the folder that training left.
        dtype: of the merged weights.
    """
    tuned = trained.load(base, result)
    if not isinstance(tuned, PeftModel):
        return cast("PreTrainedModel", tuned.to(dtype))  # type: ignore[arg-type]
    for layer in tuned.modules():
        if isinstance(layer, BaseTunerLayer):
            weight = _adapted(layer)
            weight.data = weight.data.float()
            layer.merge()
            weight.data = weight.data.to(dtype)
    return cast("PreTrainedModel", tuned.unload().to(dtype))


def _adapted(layer: Any) -> torch.Tensor:
    """The weight that a layer changes; experts that are one tensor are no layer that has one."""
    found: Any = layer.get_base_layer()
    return layer.get_param() if isinstance(layer, ParamWrapper) else found.weight  # type: ignore[no-any-return]


def save_model(
    model: PreTrainedModel,
    model_folder: Path,
    folder: Path,
    chat_template: str,
    stop_ids: Sequence[int],
) -> None:
    """Save weights, tokenizer, chat template and stop tokens as one servable folder.

    The base's own end-of-text token is often not the end of a turn; what generation stops on
    follows the template instead, in config and generation config alike.
    """
    tokenizer = AutoTokenizer.from_pretrained(model_folder, local_files_only=True)
    tokenizer.chat_template = chat_template or None
    if tokenizer.eos_token_id is None or tokenizer.eos_token_id not in stop_ids:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(stop_ids[0])
    tokenizer.save_pretrained(folder)
    generation = model.generation_config or GenerationConfig()
    generation.eos_token_id = list(stop_ids)
    generation.bos_token_id = tokenizer.bos_token_id
    generation.pad_token_id = tokenizer.pad_token_id
    sampling = (generation.temperature, generation.top_p, generation.top_k)
    if not generation.do_sample and any(value is not None for value in sampling):
        generation.do_sample = True  # saving refuses sampling values beside greedy decoding
    model.generation_config = generation
    model.config.eos_token_id = stop_ids[0] if len(stop_ids) == 1 else list(stop_ids)
    model.save_pretrained(folder)


LANGUAGE_MODEL = ModelKind(load_base, logits_on, save_model, "token")
REWARD_MODEL = ModelKind(load_scorer, preferences_on, save_scorer, "pair")
