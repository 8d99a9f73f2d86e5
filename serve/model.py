"""What is served: a model folder, the name clients use for it, and its adapters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serve.errors import AdapterNotUsable, ModelNotFound

# The ranks that vLLM has kernels for (its MaxLoRARanks); adapters of another rank are padded.
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(frozen=True)
class ServedModel:
    """A model that `open_model` found fit to serve."""

    path: Path
    """Folder in Hugging Face format. Never shown to clients."""

    name: str
    """The name in requests (``model``) and in the models list."""

    adapters: Mapping[str, Path] = field(default_factory=dict)
    """LoRA folders by the name under which a request chooses one."""

    max_lora_rank: int = 0
    """The largest adapter's rank, rounded up to one that vLLM has; 0 without adapters."""


def open_model(
    path: Path | str,
    *,
    name: str | None = None,
    adapters: Mapping[str, Path | str] | None = None,
) -> ServedModel:
    """Check that a folder and its adapters can be served, without loading anything.

    Args:
        path: local folder in Hugging Face format.
        name: the model's name for clients; the folder's own name if not given.
        adapters: LoRA folders by name.

    Raises:
        ModelNotFound: there is no such folder, or no ``config.json`` in it.
        AdapterNotUsable: an adapter's folder has no readable ``adapter_config.json``, its
            rank is above 512, or its name is taken by the model.
    """
    folder = Path(path).expanduser().resolve()
    if not folder.is_dir():
        raise ModelNotFound(folder, "there is no such folder")
    if not (folder / "config.json").is_file():
        raise ModelNotFound(folder, "the folder has no config.json")
    served_name = name or folder.name
    opened = {key: Path(value).expanduser().resolve() for key, value in (adapters or {}).items()}
    if served_name in opened:
        raise AdapterNotUsable(
            served_name,
            opened[served_name],
            "the model itself has that name; rename the adapter or the model (--name)",
        )
    rank = max((_rank(key, value) for key, value in opened.items()), default=0)
    return ServedModel(folder, served_name, opened, rank)


def _rank(name: str, folder: Path) -> int:
    """The smallest rank vLLM allows that holds this adapter's."""
    config = _adapter_config(name, folder)
    ranks = [config.get("r"), *(config.get("rank_pattern") or {}).values()]
    if not all(isinstance(rank, int) for rank in ranks):
        raise AdapterNotUsable(name, folder, "adapter_config.json gives no whole number for 'r'")
    largest: int = max(ranks)
    if largest > _RANKS[-1]:
        raise AdapterNotUsable(
            name,
            folder,
            f"its rank {largest} is above {_RANKS[-1]}, vLLM's largest; merge it instead",
        )
    return rank_with_kernels(largest)


def rank_with_kernels(rank: int) -> int:
    """The smallest rank vLLM allows that holds one of up to 512."""
    return next(allowed for allowed in _RANKS if rank <= allowed)


def _adapter_config(name: str, folder: Path) -> dict[str, Any]:
    file = folder / "adapter_config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AdapterNotUsable(
            name, folder, "there is no adapter_config.json; give a folder that PEFT saved"
        ) from None
    except ValueError as error:
        raise AdapterNotUsable(name, folder, f"{file.name} is not JSON ({error})") from None
    if not isinstance(config, dict):
        raise AdapterNotUsable(name, folder, f"{file.name} is not a JSON object")
    return config
