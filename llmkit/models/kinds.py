"""What a model folder holds, told from its config and the sizes of its weight files alone."""

import json
from pathlib import Path
from typing import Any

from llmkit.errors import UsageError

READERS = (
    "ForMaskedLM",
    "ForPreTraining",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
    "ForNextSentencePrediction",
)
"""Ends of architectures' names that read a text as a whole, from both sides."""


def refuse_what_writes_no_text(name: str, folder: Path) -> None:
    """Refuse a model that does not write one token after another from those before it.

    transformers loads most of them as a causal language model all the same: what their weights
    were never trained for.

    Args:
        name: what the person asked for.
        folder: where it is.

    Raises:
        UsageError: it has an encoder, or its weights are not there to their end.
    """
    config = _config(folder)
    architectures = config.get("architectures") or []
    kind = ", ".join(architectures) or config.get("model_type", "of no known kind")
    remedy = "Name a causal language model: `llmkit models list` shows those in the catalogue."
    if config.get("is_encoder_decoder"):
        raise UsageError(
            f"model {name!r} ({kind}) has an encoder beside its decoder. What is trained, merged "
            f"and served here is one decoder that goes on with a text. {remedy}"
        )
    if not config.get("is_decoder") and any(each.endswith(READERS) for each in architectures):
        raise UsageError(
            f"model {name!r} ({kind}) is an encoder: it reads a text from both sides at once and "
            f"writes none. {remedy}"
        )
    _refuse_missing_weights(name, folder)


def _refuse_missing_weights(name: str, folder: Path) -> None:
    """Refuse a folder whose download or copy was cut short."""
    again = "Copy or fetch it again, whole."
    for index in folder.glob("*.index.json"):
        wanted = set(_json(index).get("weight_map", {}).values())
        missing = sorted(each for each in wanted if not (folder / each).is_file())
        if missing:
            raise UsageError(
                f"model {name!r}: {index} names {len(wanted)} files of weights, and "
                f"{len(missing)} are not there ({', '.join(missing[:3])}). {again}"
            )
    files = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    if not files:
        raise UsageError(
            f"model {name!r}: {folder} has a config.json and no weights (*.safetensors, or *.bin). "
            f"{again}"
        )
    for file in sorted(files):
        if file.suffix == ".safetensors" and not _is_whole(file):
            raise UsageError(
                f"model {name!r}: {file} is cut short: it has fewer bytes "
                f"({file.stat().st_size:,}) than it says itself. {again}"
            )


def _is_whole(file: Path) -> bool:
    """Whether a safetensors file has as many bytes as its header says."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > size:
            return False
        try:
            header = json.loads(opened.read(length))
        except ValueError:
            return False
    ends = [tensor["data_offsets"][1] for key, tensor in header.items() if key != "__metadata__"]
    return size >= 8 + length + max(ends, default=0)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    return _json(path) if path.is_file() else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UsageError(f"{path}: damaged, not a JSON object. Copy or fetch the model again.")
    return value
