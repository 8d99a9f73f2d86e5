"""What the processes of one training tell each other; alone, everything is as one process has it.

Each process computes its share of an optimiser step. What is decided from a figure (stop, keep,
refuse) is decided from the figure of all of them, or one would stop while the others wait for it.
"""

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.distributed.tensor import DTensor

PATIENCE = timedelta(minutes=30)
"""How long one process waits for another: rank 0 may be writing a large checkpoint."""


def join(device_kind: str) -> None:
    """Become one of the processes that the launcher started, and take its GPU."""
    if device_kind == "cuda":
        torch.cuda.set_device(local_rank())
    # Figures go over gloo from the machine's memory, gradients over NCCL where there are GPUs.
    backend = "cpu:gloo,cuda:nccl" if device_kind == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)


def leave() -> None:
    """End the exchange."""
    if dist.is_initialized():
        dist.destroy_process_group()


def count() -> int:
    """How many processes train together, on all machines."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def local_rank() -> int:
    """Which of those on this machine this one is, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_first() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


def weights_are_shared_out() -> bool:
    """Whether each process holds a share of the weights, which is gathered around each layer.

    Also said of DeepSpeed's ZeRO 2, which shares out gradients only: its engine wraps the model.
    """
    return "true" in (
        os.environ.get("ACCELERATE_USE_FSDP"),
        os.environ.get("ACCELERATE_USE_DEEPSPEED"),
    )


def total(values: Mapping[str, float]) -> dict[str, float]:
    """Sums over all processes; every process must give the same names."""
    if count() == 1 or not values:
        return dict(values)
    names = sorted(values)
    sums = torch.tensor([float(values[name]) for name in names], dtype=torch.float64)
    dist.all_reduce(sums)
    return dict(zip(names, sums.tolist(), strict=True))


def total_of_each(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Element by element, the sums over all processes; every process must give as many."""
    if count() == 1:
        return values
    sums = torch.tensor(values)
    dist.all_reduce(sums)
    found: NDArray[np.float32] = sums.numpy()
    return found


def largest(value: float) -> float:
    """The largest over all processes."""
    if count() == 1:
        return value
    found = torch.tensor([value], dtype=torch.float64)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return float(found)


def from_first(value: Any) -> Any:
    """What the first process has; all wait for it."""
    if count() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held, src=0, device=torch.device("cpu"))
    return held[0]


def wait() -> None:
    """Go on when all are here."""
    largest(0.0)


def local_part(weight: torch.Tensor) -> torch.Tensor:
    """What of a weight this process holds."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


def gathered(model: torch.nn.Module) -> dict[str, torch.Tensor] | None:
    """The whole of what trains, where it is shared out over processes; None where it is not.

    All processes must call this together; only the first is given the weights.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not any(isinstance(p, DTensor) or hasattr(p, "ds_id") for p in trained.values()):
        return None
    weights = {}
    for name, parameter in trained.items():
        whole = _whole(parameter).detach().cpu()
        if is_first():
            weights[name] = whole
    return weights


def _whole(parameter: torch.nn.Parameter) -> torch.Tensor:
    if isinstance(parameter, DTensor):
        return parameter.full_tensor()
    if hasattr(parameter, "ds_id"):  # DeepSpeed's ZeRO 3
        from deepspeed.zero import GatheredParameters  # type: ignore[import-not-found]

        with GatheredParameters([parameter]):
            return parameter.detach().clone()
    return parameter
