"""What dpo, kto and orpo have in common: pairs, rewards, and figures of both."""

from collections.abc import Mapping
from typing import Any

import torch

from llmkit.training.batching import BAD, GOOD


def pairs(batch: Mapping[str, Any]) -> int:
    """How many pairs a batch has."""
    return len(batch["row_targets"]) // 2


def sides(batch: Mapping[str, Any], values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Values of rows ``[rows]`` as those of chosen and of rejected ones, ``[pairs]`` each."""
    kinds = batch["row_kinds"]
    return values[kinds == GOOD], values[kinds == BAD]


def targets(batch: Mapping[str, Any]) -> torch.Tensor:
    """How many targets each row has, ``[rows]``, float32; at least 1, to divide by."""
    counts = torch.tensor(batch["row_targets"], dtype=torch.float32)
    return counts.clamp(min=1).to(batch["input_ids"].device)


def pair_figures(
    chosen: torch.Tensor, rejected: torch.Tensor, total: float
) -> dict[str, torch.Tensor]:
    """A batch's part of the figures of a step.

    Args:
        chosen: rewards of the chosen sides, ``[pairs]``.
        rejected: those of the other sides.
        total: pairs of the whole step.
    """
    chosen, rejected = chosen.detach(), rejected.detach()
    parts = {
        "margin": chosen - rejected,
        "accuracy": (chosen > rejected).float(),
        "chosen_reward": chosen,
        "rejected_reward": rejected,
    }
    return {name: part.sum() / total for name, part in parts.items()}
