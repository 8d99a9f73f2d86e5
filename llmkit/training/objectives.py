"""Which objective a method of training is, and whether the prepared data is of its kind."""

import numpy as np

from llmkit.errors import UsageError
from llmkit.training.batching import BAD, GOOD, MISMATCHED, Sequence, Sequences
from llmkit.training.cross_entropy import CrossEntropy
from llmkit.training.dpo import DirectPreference
from llmkit.training.kto import KahnemanTversky
from llmkit.training.objective import Objective
from llmkit.training.orpo import OddsRatio
from llmkit.training.reward import Reward
from llmkit.training.settings import Method, TrainingConfig

REFERENCED: tuple[Method, ...] = ("dpo", "kto")
"""Methods that compare the model with what it was before training."""
PAIRED: tuple[Method, ...] = ("dpo", "orpo", "reward")
"""Methods that learn from a chosen and a rejected answer."""


def objective_for(config: TrainingConfig) -> Objective:
    """What a training makes smaller.

    Raises:
        UsageError: the method has no objective of its own.
    """
    match config.method:
        case "sft" | "pretrain":
            return CrossEntropy()
        case "dpo":
            return DirectPreference(config.preference)
        case "kto":
            return KahnemanTversky(config.preference)
        case "orpo":
            return OddsRatio(config.preference)
        case "reward":
            return Reward()
    raise UsageError(f"training.method={config.method}: nothing here learns in that way.")


def refuse_other_rows(method: Method, sequences: Sequences) -> None:
    """Look whether rows are what a method learns from: pairs, labelled rows, or rows alone.

    Raises:
        UsageError: they were prepared for another method, or a unit is not whole.
    """
    wanted = "rows without a preference"
    units: list[tuple[int, int]] = []
    if method in PAIRED:
        wanted, units = "pairs of a chosen and a rejected answer", [(GOOD, BAD)]
    elif method == "kto":
        wanted = "answers labelled good or bad, each with a mismatched one"
        units = [(GOOD, MISMATCHED), (BAD, MISMATCHED)]
    for index, sequence in enumerate(sequences):
        if not _is_made_of(sequence, units):
            raise UsageError(
                f"training.method={method} learns from {wanted}, and the prepared data (sequence "
                f"{index}) holds something else. Prepare it again: llmkit prep RECIPE"
            )


def _is_made_of(sequence: Sequence, units: list[tuple[int, int]]) -> bool:
    kinds = sequence.row_kinds
    if kinds is None or not units:
        return kinds is None and not units
    if len(kinds) != len(sequence.row_lengths) or len(kinds) % 2:
        return False
    return {tuple(unit) for unit in np.asarray(kinds).reshape(-1, 2).tolist()} <= set(units)
