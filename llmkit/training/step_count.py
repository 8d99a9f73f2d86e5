"""How many steps a training has, known before anything is loaded."""

import math
from dataclasses import dataclass

from llmkit.errors import UsageError
from llmkit.training.settings import TrainingConfig


@dataclass(frozen=True)
class Plan:
    """The steps of a training."""

    sequences: int
    steps_an_epoch: int
    steps: int
    checkpoint_every: int


def plan_steps(config: TrainingConfig, sequences: int, processes: int = 1) -> Plan:
    """Count the optimiser steps of a training.

    Args:
        config: how it is trained.
        sequences: packs, or rows where nothing is packed.
        processes: how many train together; each takes a batch of its own in every step.

    Raises:
        UsageError: the warm-up is as long as the training, so that the learning rate would never
            reach its value; or evaluations are to be compared, and there would be one only.
    """
    rows = config.batch.rows * processes
    batch = rows * config.batch.accumulate
    an_epoch = math.ceil(math.ceil(sequences / rows) / config.batch.accumulate)
    steps = config.max_steps or math.ceil(config.epochs * an_epoch)
    if config.warmup_steps >= steps:
        raise UsageError(
            f"training.warmup_steps: {config.warmup_steps} of {steps} steps ({sequences} sequences,"
            f" {batch} a step, {config.epochs:g} epochs): the learning rate would never reach its "
            "value. Lower warmup_steps, or train longer."
        )
    every = config.evaluate_every
    if every and every >= steps and (config.keep == "best" or config.early_stopping):
        wanting = "training.keep=best" if config.keep == "best" else "training.early_stopping"
        raise UsageError(
            f"training.evaluate_every: {every} of {steps} steps ({sequences} sequences, {batch} a "
            f"step): {wanting} needs evaluations before the end, and there would be none. Lower "
            "evaluate_every, or train longer."
        )
    return Plan(sequences, an_epoch, steps, config.checkpoint_every or max(1, steps // 10))
