"""Which objective a method of training is, and whether the prepared data is of its kind."""

from llmkit.errors import UsageError
from llmkit.training.batching import BAD, GOOD, MISMATCHED, Sequences
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
    units: set[tuple[int, int]] | None = None
    if method in PAIRED:
        wanted, units = "pairs of a chosen and a rejected answer", {(GOOD, BAD)}
    elif method == "kto":
        wanted = "answers labelled good or bad, each with a mismatched one"
        units = {(GOOD, MISMATCHED), (BAD, MISMATCHED)}
    try:
        found = sequences.pairs_of_kinds()
        fits = found is None if units is None else found is not None and found <= units
    except ValueError:
        fits = False
    if not fits:
        raise UsageError(
            f"training.method={method} learns from {wanted}, and the prepared data holds something "
            "else. Prepare it again: llmkit prep RECIPE"
        )
