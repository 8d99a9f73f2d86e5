"""What training's own code allocates, run on shapes: checks, evaluation, one longest step."""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from transformers import PreTrainedModel

from llmkit.errors import LlmkitError
from llmkit.models.adapters import base_of
from llmkit.models.loading import computing_in
from llmkit.models.trained import TrainedModel
from llmkit.planning.ledger import Ledger
from llmkit.planning.shapes import without_memory
from llmkit.planning.workload import Workload
from llmkit.training import isolation
from llmkit.training.batching import MISMATCHED, Sequence, Sequences, collate, to_device
from llmkit.training.cross_entropy import CrossEntropy
from llmkit.training.distillation import Distillation
from llmkit.training.kernels.choice import Key, apply_kernels
from llmkit.training.objective import Objective
from llmkit.training.settings import TrainingConfig

CPU = torch.device("cpu")
MOST_TRACED = 24
"""Sequences of a step that are run one by one. Each takes about a tenth of a second; what a step
takes grows by the same for every further one (they are padded to the longest, which is among the
first), so a larger step is counted from one of this size and one of two thirds of it."""


class CannotTrace(LlmkitError):
    """What a model does depends on values, and shapes have none."""


@dataclass(frozen=True)
class Traced:
    """Bytes beside weights and the optimiser's moments.

    Of two, the first are those of live tensors, the second those that a process on the CPU holds.
    """

    checks: tuple[int, int]
    """The most while the checks before training run, live and resident."""
    evaluation: tuple[int, int]
    """The most while the loss is measured without training, after the last step."""
    step: tuple[int, int]
    """The most in a longest step."""
    kept: int
    """Of the step, what the forward pass keeps for the backward pass."""


def trace(
    model: TrainedModel,
    config: TrainingConfig,
    workload: Workload,
    loaded: int,
    dtype: torch.dtype,
    teacher: PreTrainedModel | None = None,
    forms: Collection[Key] | None = None,
) -> Traced:
    """Run a training's phases on a model of meta tensors.

    Args:
        model: with what trains chosen; its tensors are replaced.
        config: how it trains.
        workload: the heaviest sequences.
        loaded: bytes of small blocks that came and went while the base was loaded.
        dtype: of products.
        teacher: of meta tensors too, where one is distilled.
        forms: the faster forms of layers that are used; None: all, unless ``kernels`` is plain.

    Raises:
        CannotTrace: the architecture decides by values what it computes (some mixtures of experts).
    """
    try:
        return _traced(model, config, workload, loaded, dtype, teacher, forms)
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise CannotTrace(
            f"{type(base_of(model)).__name__}: what it computes depends on values ({error}), so "
            "its memory cannot be counted on shapes. Train a few steps and look at the memory they "
            "take: training.max_steps=3."
        ) from error


def _traced(
    model: TrainedModel,
    config: TrainingConfig,
    workload: Workload,
    loaded: int,
    dtype: torch.dtype,
    teacher: PreTrainedModel | None,
    forms: Collection[Key] | None,
) -> Traced:
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    if config.kernels != "plain":
        apply_kernels(model, dtype, forms)
    without_memory(model, mode)
    ledger = Ledger()
    ledger.disregard([*model.parameters(), *model.buffers()])
    objective: Objective = CrossEntropy()  # preferences keep as much: one number a token more
    if teacher is not None and config.distillation:
        without_memory(teacher, mode)
        ledger.disregard([*teacher.parameters(), *teacher.buffers()])
        objective = Distillation(config.distillation, teacher)
    ledger.grow_heap(loaded)
    with mode, ledger:
        checks = _check(model, workload.first, config, dtype, ledger)
        one = partial(_step, model, config, objective, dtype=dtype, ledger=ledger)
        step, kept = _step_of_any_size(one, workload.batch, ledger)
        evaluation = _evaluate(model, objective, workload.watched, dtype, ledger)
    return Traced(checks, evaluation, step, kept)


def _learned(sequence: Sequence) -> Sequence:
    """The rows that have a gradient, all of one kind."""
    if sequence.row_kinds is not None:
        sequence = sequence.rows_where(sequence.row_kinds != MISMATCHED)
    return sequence.without_kinds()


def _check(
    model: TrainedModel,
    first: list[Sequence],
    config: TrainingConfig,
    dtype: torch.dtype,
    ledger: Ledger,
) -> tuple[int, int]:
    base, sequences = base_of(model), cast("Sequences", [_learned(each) for each in first])
    ledger.restart()
    # The last thing they do is read a number, and shapes have none.
    with suppress(DataDependentOutputException):
        isolation.check_loss_is_the_models_own(base, sequences, dtype)
    if config.batch.rows > 1 or any(len(each.row_lengths) > 1 for each in first):
        with suppress(DataDependentOutputException):
            isolation.check_rows_are_apart(base, sequences, dtype)
    return ledger.live_peak, ledger.resident_peak


def _step_of_any_size(
    step: Callable[[list[Sequence]], tuple[tuple[int, int], int]],
    sequences: list[Sequence],
    ledger: Ledger,
) -> tuple[tuple[int, int], int]:
    rows = len(sequences)
    if rows <= MOST_TRACED:
        return step(sequences)
    few = MOST_TRACED * 2 // 3
    (live, resident), kept = step(sequences[:few])
    heap = ledger.heap
    more, more_kept = step(sequences[:MOST_TRACED])

    def at(small: int, large: int) -> int:
        return large + (large - small) * (rows - MOST_TRACED) // (MOST_TRACED - few)

    # Blocks that are small here may be large there, where they would leave no holes: of a process
    # more is counted than it will hold, by a fifth at most.
    ledger.grow_heap(at(heap, ledger.heap))
    return (at(live, more[0]), at(resident, more[1])), at(kept, more_kept)


def _step(
    model: TrainedModel,
    config: TrainingConfig,
    objective: Objective,
    sequences: list[Sequence],
    dtype: torch.dtype,
    ledger: Ledger,
) -> tuple[tuple[int, int], int]:
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    if config.batch.accumulate > 1:  # the gradients of the pass before are there
        for parameter in trained:
            parameter.grad = torch.empty_like(parameter)
    ledger.restart()
    batch = to_device(collate([_learned(each) for each in sequences]), CPU)
    before = ledger.live
    loss = _loss(model, objective, batch, dtype)
    kept = ledger.live - before
    loss.backward()
    del loss
    model.zero_grad()
    return (ledger.live_peak, ledger.resident_peak), kept


def _evaluate(
    model: TrainedModel,
    objective: Objective,
    watched: Sequence,
    dtype: torch.dtype,
    ledger: Ledger,
) -> tuple[int, int]:
    model.eval()
    ledger.restart()
    with torch.no_grad():
        _loss(model, objective, to_device(collate([_learned(watched)]), CPU), dtype)
    return ledger.live_peak, ledger.resident_peak


def _loss(
    model: TrainedModel, objective: Objective, batch: Mapping[str, Any], dtype: torch.dtype
) -> torch.Tensor:
    with computing_in(dtype, CPU):
        return objective.loss(base_of(model), batch, objective.count(batch)).value
