"""What is said of a training that was stopped because its loss had gone wrong."""

from pathlib import Path

from llmkit.training import processes
from llmkit.training.checkpoints import Divergence, last_good, note_divergence, step_of
from llmkit.training.progress import Diverged, Guard
from llmkit.training.settings import TrainingConfig


def with_next_step(
    error: Diverged, config: TrainingConfig, checkpoints: Path, guard: Guard
) -> Diverged:
    """Say what is kept and how to begin anew, and note it for the training that comes next.

    Args:
        error: why it was stopped; of several processes, all must have it.
        config: how it trained.
        checkpoints: its checkpoints.
        guard: what saw its losses.
    """
    good = last_good(checkpoints, guard.is_good)
    if processes.is_first():
        note_divergence(checkpoints, Divergence(str(error), step_of(good) if good else None))
    processes.wait()  # one that ends takes the others with it
    rate = min(TrainingConfig().learning_rate, config.learning_rate / 10)
    change = (
        f"training.learning_rate={rate:g} (it was {config.learning_rate:g}), or a warm-up, "
        "training.warmup_steps"
    )
    if good is None:
        return Diverged(
            f"{error}\nNo checkpoint was saved while the loss was good. Run the same command with "
            f"a lower rate, {change}: it begins anew, and removes what this training left."
        )
    return Diverged(
        f"{error}\nThe last good checkpoint is {good}. Try a lower rate, {change}. That is another "
        f"training, which begins anew: give it another name (name={checkpoints.parent.name}-2), or "
        f"remove {checkpoints} first."
    )
