"""What a training makes smaller, as the Trainer, its view and its tests see it.

Every objective is a sum over things of its own (supervised tokens, pairs, rows) divided by how
many of them a whole optimiser step has, on all devices. So accumulation over k forward passes is
one batch of k, and several processes are one.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from transformers import PreTrainedModel

from llmkit.training import processes
from llmkit.training.batching import to_device

Counts = dict[str, int]
"""What is averaged over: ``{"supervised": 1213}`` (tokens), ``{"pairs": 8}``."""


@dataclass(frozen=True, eq=False)
class Loss:
    """One forward pass's part of the loss of an optimiser step."""

    value: torch.Tensor
    """A float32 scalar with a gradient; over all passes of a step these add up to its loss."""
    figures: dict[str, torch.Tensor] = field(default_factory=dict)
    """Parts of other means worth watching (margins, accuracies); they add up likewise."""


class Objective(Protocol):
    """A method of training."""

    def count(self, batch: Mapping[str, Any]) -> Counts:
        """What a batch has of what the loss is averaged over."""

    def loss(
        self, model: PreTrainedModel, batch: Mapping[str, Any], totals: Mapping[str, float]
    ) -> Loss:
        """A batch's part of the loss.

        Args:
            model: the model that trains, adapters included, without wrappers.
            batch: as `llmkit.training.batching.collate` makes it, on the model's device.
            totals: the counts of the whole optimiser step, and what was looked ahead at.
        """


@runtime_checkable
class LooksAhead(Protocol):
    """An objective whose loss needs to know something of the whole step before its first part."""

    def look_ahead(self, model: PreTrainedModel, batch: Mapping[str, Any]) -> dict[str, float]:
        """A batch's part of sums over the whole step; computed without gradients."""


def accept_objectives(base: PreTrainedModel) -> None:
    """Let a model's ``forward`` compute an objective inside it.

    What shards or replicates a model (FSDP, DDP) works around its ``forward``: it gathers weights
    before and arms the exchange of gradients after it. A loss that calls the decoder by itself
    would pass by all that. With ``objective=`` the forward calls it on the model and returns what
    it gives; without, the model is as it was.
    """
    own = base.forward

    def forward(
        *args: Any, objective: Callable[[PreTrainedModel], Any] | None = None, **rest: Any
    ) -> Any:
        return own(*args, **rest) if objective is None else objective(base)

    base.forward = forward


def step_loss(
    model: nn.Module,
    objective: Objective,
    batch: Mapping[str, Any],
    totals: Mapping[str, float],
) -> Loss:
    """A batch's part of the loss, through the model's own ``forward``."""
    found = model(objective=lambda base: vars(objective.loss(base, batch, totals)))
    return Loss(**found)


@torch.no_grad()
def looked_ahead(
    model: nn.Module,
    objective: Objective,
    batches: Iterable[Mapping[str, Any]],
    device: torch.device,
) -> dict[str, float]:
    """What an objective wants to know of all the batches of a step; nothing for most.

    Batches that are not ``counted`` are looked at too, for nothing: where weights are spread over
    processes, all must take part in every forward pass.
    """
    sums: dict[str, float] = {}
    if not isinstance(objective, LooksAhead):
        return sums
    was_training = model.training
    model.eval()
    for batch in batches:
        here = to_device(batch, device)
        for name, part in model(objective=_look_ahead(objective, here)).items():
            sums[name] = sums.get(name, 0.0) + part * batch["counted"]
    model.train(was_training)
    return processes.total(sums)


def _look_ahead(
    objective: LooksAhead, batch: Mapping[str, Any]
) -> Callable[[PreTrainedModel], dict[str, float]]:
    return lambda base: objective.look_ahead(base, batch)


def counted(objective: Objective, batch: Mapping[str, Any]) -> Counts:
    """Counts of a batch; zeros of one that only keeps the other processes company."""
    return {name: number * batch["counted"] for name, number in objective.count(batch).items()}


def add_counts(parts: list[Counts]) -> Counts:
    """Counts of several batches together."""
    return {name: sum(part[name] for part in parts) for name in (parts[0] if parts else {})}
