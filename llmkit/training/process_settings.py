"""Which processes a training is asked to have, and whether it can have them."""

import importlib.util
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from llmkit.errors import UsageError
from llmkit.files import content_hash
from llmkit.models.settings import ModelConfig
from llmkit.training.settings import LoraAdapter, TrainingConfig

Kind = Literal["ddp", "fsdp", "deepspeed"]


@dataclass(frozen=True)
class Processes:
    """How many processes train, where, and what each holds of the model."""

    count: int
    """On all machines."""
    config: Path
    """accelerate's own configuration file."""
    kind: Kind
    machines: int = 1
    machine_rank: int = 0
    zero_stage: int = 0
    """DeepSpeed's."""

    @property
    def shares_weights(self) -> bool:
        """Whether a process holds a part of the weights only."""
        return self.kind == "fsdp" or self.zero_stage == 3

    @property
    def here(self) -> int:
        """Processes on this machine."""
        return self.count // self.machines

    def inputs(self) -> dict[str, str]:
        """What a result depends on, besides the number of processes."""
        return {"accelerate": content_hash(self.config)}


def shipped() -> dict[str, Path]:
    """The configurations that come with llmkit, by name."""
    folder = Path(str(resources.files("llmkit.training") / "accelerate"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_processes(count: int | None, config: str | None, device: str) -> Processes | None:
    """What ``--processes`` and ``--accelerate`` ask for.

    Args:
        count: how many processes on all machines; None: what the configuration says, or one a GPU.
        config: a file of accelerate's, or the name of one that ships; None: ddp.
        device: ``cuda`` or ``cpu``.

    Returns:
        None when one process trains in this one.

    Raises:
        UsageError: the file is not one of accelerate's, or asks for what cannot be.
    """
    if count is not None and count < 1:
        raise UsageError(f"--processes: {count}; at least 1.")
    if config is None and count in (None, 1):
        return None
    path = _config_path(config or "ddp")
    read = _read_config(path)
    kinds: dict[str, Kind] = {"MULTI_GPU": "ddp", "FSDP": "fsdp", "DEEPSPEED": "deepspeed"}
    kind = kinds.get(read.distributed_type.value)
    if kind is None:
        raise UsageError(
            f"{path}: distributed_type is {read.distributed_type.value}; llmkit trains with "
            f"{', '.join(kinds)} (on the CPU, MULTI_GPU stands for its processes too)."
        )
    if kind == "fsdp":
        _refuse_unfit_fsdp(path, read.fsdp_config)
    found = Processes(
        count or _count_of(read, path, device),
        path,
        kind,
        read.num_machines,
        read.machine_rank,
        _zero_stage(path, read.deepspeed_config) if kind == "deepspeed" else 0,
    )
    if found.count % found.machines:
        raise UsageError(
            f"{path}: {found.count} processes cannot be divided evenly among {found.machines} "
            "machines (num_machines)."
        )
    return found


def refuse_what_cannot_run_together(
    asked: Processes, config: TrainingConfig, model: ModelConfig, device: str
) -> None:
    """Look at what only fails once every process has loaded the model.

    Raises:
        UsageError: too few GPUs, DeepSpeed is not installed, or what trains cannot be shared out.
    """
    if device == "cuda":
        _refuse_too_few_gpus(asked)
    elif asked.kind != "ddp":
        raise UsageError(
            f"--accelerate {asked.config.stem}: FSDP and DeepSpeed share a model out over GPUs, "
            "and this trains on the CPU. Use ddp, or a machine with GPUs."
        )
    if asked.kind == "deepspeed" and importlib.util.find_spec("deepspeed") is None:
        raise UsageError(
            f"--accelerate {asked.config.stem}: DeepSpeed is not installed. `pip install "
            "deepspeed` brings it; fsdp2 shares the same things out without it."
        )
    if not asked.shares_weights:
        return
    name = f"--accelerate {asked.config.stem}"
    if model.quantization != "none":
        raise UsageError(
            f"{name}: model.quantization={model.quantization}: quantised weights cannot be shared "
            "out. Use ddp, where every GPU holds the whole small base, or quantization=none."
        )
    if isinstance(config.adapter, LoraAdapter) and config.adapter.init == "pissa":
        raise UsageError(
            f"{name}: training.adapter.init=pissa needs the whole adapter in one process when it "
            "is written. Use ddp, or init=zero."
        )
    if asked.kind == "deepspeed" and config.keep == "best":
        raise UsageError(
            f"{name}: training.keep=best puts earlier weights back, which ZeRO 3 cannot. Use "
            "fsdp2, or keep=last."
        )


def _config_path(config: str) -> Path:
    named = shipped()
    path = named.get(config, Path(config))
    if not path.is_file():
        raise UsageError(
            f"--accelerate: {config}: no such file. These come with llmkit: {', '.join(named)}."
        )
    return path


def _read_config(path: Path) -> Any:
    from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file

    try:
        found = load_config_from_file(str(path))
    except Exception as error:  # accelerate lets errors of every kind through
        raise UsageError(
            f"{path}: not a configuration of accelerate: {error}. `accelerate config "
            "--config_file FILE` makes one."
        ) from error
    if not isinstance(found, ClusterConfig):
        raise UsageError(f"{path}: compute_environment must be LOCAL_MACHINE.")
    return found


def _refuse_unfit_fsdp(path: Path, settings: dict[str, Any]) -> None:
    wanted = {
        "fsdp_version": (2, "llmkit trains with FSDP2"),
        "fsdp_state_dict_type": ("FULL_STATE_DICT", "checkpoints hold whole weights"),
        "fsdp_cpu_ram_efficient_loading": (False, "every process checks the base that it loads"),
    }
    for name, (value, why) in wanted.items():
        if settings.get(name) != value:
            raise UsageError(
                f"{path}: fsdp_config.{name}: {settings.get(name)}; it must be {value}: {why}."
            )


def _zero_stage(path: Path, settings: dict[str, Any]) -> int:
    """What DeepSpeed shares out, as the configuration says or the file of DeepSpeed's it names."""
    file = settings.get("deepspeed_config_file")
    if not file:
        return int(settings.get("zero_stage", 2))
    try:
        return int(json.loads(Path(file).read_text(encoding="utf-8"))["zero_optimization"]["stage"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path}: deepspeed_config.deepspeed_config_file: {file}: says no "
            f"zero_optimization.stage ({type(error).__name__}: {error})."
        ) from error


def _count_of(read: Any, path: Path, device: str) -> int:
    """How many processes a configuration means; one a GPU where it does not say."""
    import torch

    if read.num_processes > 0:
        return int(read.num_processes)
    if device == "cuda":
        return torch.cuda.device_count() * int(read.num_machines)
    raise UsageError(f"{path}: does not say how many processes. Say it with --processes.")


def _refuse_too_few_gpus(asked: Processes) -> None:
    import torch

    there = torch.cuda.device_count()
    if asked.here > there:
        raise UsageError(
            f"--processes: {asked.count} ({asked.here} on this machine) want a GPU each, and "
            f"{there} answer here. Use --processes {there * asked.machines}, and "
            "training.batch.accumulate to keep the size of a step."
        )
