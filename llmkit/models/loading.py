"""Load a base model: as it is, in 8 bits, or in NF4; on CUDA or on the CPU."""

import gc
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BitsAndBytesConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from llmkit.errors import UsageError
from llmkit.models.attention import ROWS_ATTENTION
from llmkit.models.settings import Quantization

CANNOT_LOAD = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)
"""What transformers raises for a folder that it cannot make a model of."""
BYTES_A_WEIGHT = {"none": 2.0, "int8": 1.1, "nf4": 0.6}


def quiet() -> None:
    """Keep the libraries' own progress bars and hints off the terminal; errors still show."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    # Here an adapter is never beside another, and is kept without what it took out of the base.
    warnings.filterwarnings("ignore", "PiSSA changes the base weights")
    # It says in every product of an 8-bit layer that it computes in float16.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def choose_device(wanted: str) -> torch.device:
    """The device to compute on.

    Raises:
        UsageError: CUDA was asked for and is not there.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "model.device=cuda: no CUDA GPU answers on this machine "
            f"(torch {torch.__version__}). Use model.device=cpu, or auto."
        )
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def compute_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the machine computes in it, float32 elsewhere."""
    if device.type == "cuda":
        return (
            torch.bfloat16
            if torch.cuda.is_bf16_supported(including_emulation=False)
            else torch.float16
        )
    can = torch.cpu.get_capabilities()
    fast = any(can.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if fast else torch.float32


def computing_in(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """A context in which products are computed in ``dtype``, whatever the weights are held in."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def load_base(
    folder: Path,
    *,
    quantization: Quantization,
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> PreTrainedModel:
    """Load frozen weights.

    Args:
        folder: a model folder.
        quantization: ``nf4`` is 4-bit NormalFloat with double quantisation (QLoRA).
        device: where to.
        dtype: of what is not quantised, and of the computation; chosen for the device by default.

    Returns:
        The model in evaluation mode, nothing trainable, its attention keeping packed rows apart.

    Raises:
        UsageError: it cannot be loaded as a causal language model, or does not fit in memory.
    """
    options = _options(folder, quantization, device, dtype)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, output_loading_info=True, **options
        )
    except CANNOT_LOAD as error:
        raise UsageError(
            f"{folder}: cannot be loaded as a causal language model: {first_line(error)}"
        ) from error
    model, found = loaded
    _refuse_random_weights(folder, found)
    return _frozen(model)


def first_line(error: Exception) -> str:
    """What went wrong, without the list of all that transformers knows."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _refuse_random_weights(folder: Path, found: dict[str, Any], drawn: str = "") -> None:
    """Refuse a model of which transformers drew weights at random, for lack of them.

    Args:
        folder: where it was loaded from.
        found: what transformers says of the loading.
        drawn: a weight that may be drawn.
    """
    missing = sorted(set(found["missing_keys"]) - {drawn})
    other = sorted(str(key[0]) for key in found["mismatched_keys"])
    if missing or other:
        named = ", ".join([*missing, *other][:3])
        raise UsageError(
            f"{folder}: {len(missing) + len(other)} weights are not in it, or have another shape "
            f"than its config.json says ({named}), and would be random numbers. Its weights are of "
            "another model, or of one without a head to write with."
        )


def load_scorer(
    folder: Path,
    *,
    quantization: Quantization,
    device: torch.device,
    dtype: torch.dtype | None = None,
    seed: int = 0,
) -> PreTrainedModel:
    """Load frozen weights as a reward model: a decoder, and one score in place of its head.

    Args:
        folder: a folder of a language model, or of a reward model.
        quantization: as for `load_base`; the score is never quantised.
        device: where to.
        dtype: of all but the score, which is float32.
        seed: decides a score that the folder does not have.

    Raises:
        UsageError: transformers knows no scoring model of this architecture, or it does not fit in
            memory.
    """
    options = _options(folder, quantization, device, dtype)
    if options["quantization_config"] is not None:
        options["quantization_config"].llm_int8_skip_modules = ["score"]
    try:
        model, found = AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=1, output_loading_info=True, **options
        )
    except CANNOT_LOAD as error:
        raise UsageError(
            f"{folder}: cannot be loaded as a reward model: {first_line(error)}"
        ) from error
    _refuse_random_weights(folder, found, drawn="score.weight")
    if not isinstance(getattr(model, "score", None), torch.nn.Linear):
        raise UsageError(
            f"{folder}: {type(model).__name__} does not score the last token of a row, so it "
            "cannot become a reward model here."
        )
    model.score.weight.data = model.score.weight.data.float()
    if "score.weight" in found["missing_keys"]:
        generator = torch.Generator().manual_seed(seed)
        spread = getattr(model.config.get_text_config(), "initializer_range", 0.02)
        drawn = torch.randn(model.score.weight.shape, generator=generator) * spread
        model.score.weight.data.copy_(drawn)
    return _frozen(model)


def _options(
    folder: Path, quantization: Quantization, device: torch.device, dtype: torch.dtype | None
) -> dict[str, Any]:
    """How transformers is asked for a model, once it is known to fit."""
    dtype = dtype or compute_dtype(device)
    refuse_if_too_large(folder, quantization, device, dtype)
    return {
        "dtype": dtype,
        "device_map": {"": device},
        "quantization_config": quantization_config(quantization, dtype),
        "attn_implementation": ROWS_ATTENTION,
        "local_files_only": True,
    }


def _frozen(model: PreTrainedModel) -> PreTrainedModel:
    model.requires_grad_(requires_grad=False)
    model.eval()
    keep_4bit_weights_differentiable(model)
    return model


def keep_4bit_weights_differentiable(model: PreTrainedModel) -> None:
    """Stop bitsandbytes from repacking 4-bit weights for inference on the CPU.

    The first evaluation pass would repack them, for good, into a layout whose matrix product has
    no backward: training afterwards runs, its loss even falls a little, and every gradient that
    has to pass a frozen layer is lost without an error (bitsandbytes 0.50.2).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 (of bitsandbytes)


def release() -> None:
    """Give the GPU's memory back that no tensor holds any more: a server wants it next."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def weight_count(folder: Path) -> int:
    """Parameters of a model folder, from its shapes alone; nothing is loaded."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        return sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())


def refuse_if_too_large(
    folder: Path, quantization: Quantization, device: torch.device, dtype: torch.dtype
) -> None:
    """Refuse before loading when the weights alone are more than the memory that is free.

    Raises:
        UsageError: with the arithmetic, and what would fit.
    """
    each = dtype.itemsize if quantization == "none" else BYTES_A_WEIGHT[quantization]
    needed = weight_count(folder) * each
    if device.type == "cuda":
        free = float(torch.cuda.mem_get_info()[0])
    else:
        free = float(psutil.virtual_memory().available)
    if needed > free:
        smaller = "" if quantization == "nf4" else " model.quantization=nf4 needs about a quarter."
        raise UsageError(
            f"{folder}: {weight_count(folder):,} weights at {each} bytes need "
            f"{needed / 2**30:.1f} GiB; {free / 2**30:.1f} GiB are free on {device}.{smaller}"
        )


def quantization_config(kind: Quantization, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """How bitsandbytes is to quantise; None for weights as they are."""
    if kind == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return BitsAndBytesConfig(load_in_8bit=True) if kind == "int8" else None


def stop_token_ids(folder: Path) -> list[int]:
    """The ids that end generation, as the model folder says."""
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        if path.is_file():
            found: Any = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
            if found is not None:
                return list(found) if isinstance(found, list) else [int(found)]
    return []
