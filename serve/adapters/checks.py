"""What must hold of an adapter before the engine is given it.

vLLM looks at some of this itself, but loads an adapter of another base, or of layers that the
model has not, without a word, and then answers with the base's text or with noise.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serve.adapters.base import FLOATS, ServedBase, safetensors_header
from serve.adapters.places import CONFIG, WEIGHTS
from serve.adapters.refusal import unfit

_CONFIG_LIMIT = 1_000_000
_LARGEST = sys.float_info.max
_MATRIX = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<side>[AB])\.weight")
_PLAIN = re.compile(r"\^?[\w.]+")
_REFUSED = {
    "modules_to_save": "whole layers were trained beside it (modules_to_save)",
    "trainable_token_indices": "rows of the embeddings were trained beside it",
    "use_dora": "it is a DoRA adapter (use_dora)",
    "lora_bias": "its matrices have biases (lora_bias)",
    "layer_replication": "it replicates layers (layer_replication)",
    "alora_invocation_tokens": "it is an activated LoRA",
    "target_parameters": "it targets parameters instead of layers (target_parameters)",
}
"""What an engine that adds low-rank updates to linear layers cannot serve."""


def check_adapter(folder: Path, base: ServedBase, max_rank: int) -> int:
    """Check that an adapter fits a base and is whole. Reads all of it; blocks.

    Args:
        folder: holds `CONFIG` and `WEIGHTS`.
        base: what is served.
        max_rank: the largest rank that the engine has room for.

    Returns:
        The adapter's largest rank.

    Raises:
        AdapterRefused: it cannot be served, or not as what it was trained to be.
    """
    config = read_config(folder)
    ranks = _ranks(config, max_rank)
    try:
        header = safetensors_header(folder / WEIGHTS)
        _check_layers(_layers(header), base.layers, ranks)
        _check_values(folder / WEIGHTS)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise unfit(f"its {WEIGHTS} cannot be read: {error}.") from None
    return max(ranks)


def read_config(folder: Path) -> dict[str, Any]:
    """The adapter's settings, if they are of a plain LoRA.

    Raises:
        AdapterRefused: they cannot be read, or ask for something that cannot be served.
    """
    file = folder / CONFIG
    try:
        if file.stat().st_size > _CONFIG_LIMIT:
            raise ValueError(f"more than {_CONFIG_LIMIT} bytes")
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise unfit(f"its {CONFIG} cannot be read: {error}.") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise unfit(f"its {CONFIG} is not of a LoRA adapter (peft_type must be LORA).")
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        raise unfit(f"it was made for {config['task_type']!r}, not to write text (CAUSAL_LM).")
    for name, why in _REFUSED.items():
        if config.get(name):
            raise unfit(f"{why}; merge it into the base and serve that: llmkit merge.")
    if not config.get("target_modules"):
        raise unfit(f"its {CONFIG} names no layers (target_modules).")
    if config.get("bias", "none") != "none":
        raise unfit("it trains biases (bias); merge it into the base and serve that.")
    return config


def _ranks(config: Mapping[str, Any], max_rank: int) -> set[int]:
    """Every rank that the settings name."""
    patterns = [config.get("rank_pattern") or {}, config.get("alpha_pattern") or {}]
    for pattern in patterns:
        # vLLM takes these names for regular expressions, and one can be made to run for ever.
        if not isinstance(pattern, dict) or not all(map(_PLAIN.fullmatch, pattern)):
            raise unfit(f"rank_pattern and alpha_pattern in {CONFIG} must name layers plainly.")
    ranks = [config.get("r"), *patterns[0].values()]
    if not all(type(rank) is int and rank > 0 for rank in ranks):
        raise unfit(f"its {CONFIG} gives no whole number above 0 for 'r'.")
    if max(ranks) > max_rank:
        raise unfit(
            f"its rank {max(ranks)} is above {max_rank}, this server's largest. Start the server "
            f"with max_adapter_rank={max(ranks)}, or merge the adapter."
        )
    alphas = [config.get("lora_alpha"), *patterns[1].values()]
    if not all(isinstance(alpha, int | float) and abs(alpha) <= _LARGEST for alpha in alphas):
        raise unfit(f"its {CONFIG} gives no finite number for 'lora_alpha'.")
    return set(ranks)


def _layers(header: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, tuple[int, int]]]:
    """Shapes of the two matrices by layer: ``A`` is ``[rank, in]``, ``B`` is ``[out, rank]``."""
    layers: dict[str, dict[str, tuple[int, int]]] = {}
    for name, entry in header.items():
        found = _MATRIX.fullmatch(name)
        if found is None:
            raise unfit(f"its tensor {name[:200]!r} is not a LoRA matrix of a layer.")
        if entry["dtype"] not in FLOATS:
            raise unfit(f"{name} is {entry['dtype']}; allowed: {', '.join(sorted(FLOATS))}.")
        rows, columns = entry["shape"]
        layers.setdefault(found["layer"], {})[found["side"]] = (rows, columns)
    if not layers:
        raise unfit(f"there are no tensors in its {WEIGHTS}.")
    return layers


def _check_layers(
    layers: Mapping[str, Mapping[str, tuple[int, int]]],
    served: Mapping[str, tuple[int, ...] | None],
    ranks: set[int],
) -> None:
    for layer, matrices in layers.items():
        if matrices.keys() != {"A", "B"}:
            raise unfit(f"{layer} has only one of its two matrices.")
        (rank, columns), (rows, same) = matrices["A"], matrices["B"]
        if rank != same or rank not in ranks:
            raise unfit(
                f"the matrices of {layer} have rank {rank} and {same}, its {CONFIG} says "
                f"{', '.join(map(str, sorted(ranks)))}."
            )
        if not served:
            continue  # not in safetensors: the engine's own check must do
        # A head that shares the embeddings is not in the files.
        stored = "model.embed_tokens" if layer == "lm_head" and layer not in served else layer
        if stored not in served:
            raise unfit(f"the served model has no layer {layer[:200]!r}: it is of another base.")
        shape = served[stored]
        if shape is not None and shape != (rows, columns):
            raise unfit(
                f"{layer} is {list(shape)} in the served model and {[rows, columns]} in the "
                "adapter: it is of another base."
            )


def _check_values(file: Path) -> None:
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (not a mapping)
                if not torch.isfinite(opened.get_tensor(name)).all():
                    raise unfit(f"{name} holds values that are not finite numbers.")
    except SafetensorError as error:
        raise ValueError(str(error)) from None
