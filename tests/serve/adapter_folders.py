"""Bases, adapters and runs on the disk, and an engine that only notes what it is given."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from serve.adapters.base import ServedBase, folder_hash
from serve.adapters.refusal import unfit
from serve.adapters.registry import AdapterRegistry, Room
from serve.adapters.store import Store

TEMPLATE = "{{ messages }}"
LAYER = "model.layers.0.self_attn.q_proj"
ROOM = Room(slots=2, max_rank=8, base_names=("demo", "base"))


def make_base(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    weights = {f"{LAYER}.weight": torch.zeros(6, 4), "model.embed_tokens.weight": torch.zeros(9, 4)}
    save_file(weights, folder / "model.safetensors")
    return folder


def matrices(
    layer: str = LAYER, *, rank: int = 2, shape: tuple[int, int] = (6, 4), fill: float = 1.0
) -> dict[str, torch.Tensor]:
    rows, columns = shape
    return {
        f"base_model.model.{layer}.lora_A.weight": torch.full((rank, columns), fill),
        f"base_model.model.{layer}.lora_B.weight": torch.full((rows, rank), fill),
    }


def make_adapter(
    folder: Path, tensors: dict[str, torch.Tensor] | None = None, **config: Any
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    written = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4}
    written |= {"target_modules": ["q_proj"]} | config
    (folder / "adapter_config.json").write_text(json.dumps(written))
    save_file(matrices() if tensors is None else tensors, folder / "adapter_model.safetensors")
    return folder


def make_run(
    folder: Path, base: Path, *, fill: float = 1.0, template: str = TEMPLATE, **inputs: str
) -> Path:
    """A run directory as far as adapters are concerned."""
    adapter = make_adapter(folder / "adapter", matrices(fill=fill))
    return record_run(folder, adapter, ServedBase(base).sha256, template, **inputs)


def record_run(folder: Path, adapter: Path, base: str, template: str, **inputs: str) -> Path:
    """Write the part of a run's manifest that says what its adapter was trained on."""
    stages = {
        "prep": {"inputs": {"chat_template": hashlib.sha256(template.encode()).hexdigest()}},
        "train": {
            "inputs": {"model": base} | inputs,
            "outputs": {"adapter": {"sha256": folder_hash(adapter)}},
        },
    }
    (folder / "manifest.json").write_text(json.dumps({"stages": stages}))
    return folder


class NotingEngine:
    """An engine that knows what is in it, by name, and may refuse."""

    def __init__(self) -> None:
        self.inside: dict[str, Path] = {}
        self.loads: list[tuple[str, Path]] = []
        self.refuses = False
        self.may_load = asyncio.Event()
        self.may_load.set()

    async def load(self, name: str, folder: Path) -> None:
        await asyncio.sleep(0)
        await self.may_load.wait()
        if self.refuses:
            raise unfit("the engine refused it")
        self.inside[name] = folder
        self.loads.append((name, folder))

    async def unload(self, name: str) -> None:
        await asyncio.sleep(0)
        del self.inside[name]


def make_registry(
    folder: Path, base: Path, engine: NotingEngine, room: Room = ROOM
) -> AdapterRegistry:
    store = Store(folder)
    return AdapterRegistry(store, ServedBase(base, memory=store.memory), engine, room)
