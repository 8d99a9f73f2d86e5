"""What a training says while it runs: events on disk, a bar on the terminal, and when to stop."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

import psutil
import torch

from llmkit.errors import LlmkitError
from llmkit.files import write_text

MARGIN = 1.2
"""A step's loss counts as above the start when it is more than this times the start's."""


class Diverged(LlmkitError):
    """The training destroys the model; it was stopped."""


class TrainingView(Protocol):
    """Where a person watches a training."""

    def step(self, event: Mapping[str, Any], total_steps: int) -> None:
        """One optimiser step is done."""

    def say(self, text: str) -> None:
        """Something else happened."""


def memory_mib() -> int:
    """Memory in use: of the GPU where there is one, resident memory of the process otherwise."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated() // 2**20)
    return int(psutil.Process().memory_info().rss // 2**20)


@dataclass
class Meter:
    """Sums up one optimiser step over its forward passes."""

    loss_sum: float = 0.0
    targets: int = 0
    tokens: int = 0
    began: float = field(default_factory=time.monotonic)

    def add(self, loss_sum: float, targets: int, tokens: int) -> None:
        """Count one forward pass."""
        self.loss_sum += loss_sum
        self.targets += targets
        self.tokens += tokens

    def restart(self) -> None:
        """Begin a step's time now."""
        self.began = time.monotonic()

    def close(self) -> dict[str, Any]:
        """The step's loss (nats a supervised token), tokens and seconds; starts the next one."""
        now = time.monotonic()
        closed = {
            "loss": self.loss_sum / max(1, self.targets),
            "tokens": self.tokens,
            "supervised": self.targets,
            "seconds": round(now - self.began, 4),
        }
        self.loss_sum, self.targets, self.tokens, self.began = 0.0, 0, 0, now
        return closed


class Guard:
    """Stops a training whose loss is not a number, or stays above where it started."""

    def __init__(self, start_loss: float, patience: int) -> None:
        """Take the loss before the first step.

        Raises:
            Diverged: it is not a number: the model or the data is broken, not the training.
        """
        if not math.isfinite(start_loss):
            raise Diverged(f"the loss before the first step is {start_loss}: check the base model.")
        self.start_loss = start_loss
        self.highest = 0.0
        self.patience = patience
        self.streak = 0

    def check(self, loss: float, step: int) -> None:
        """Look at one step's loss.

        Raises:
            Diverged: NaN or infinity at once; above the start after ``patience`` steps in a row.
        """
        if not math.isfinite(loss):
            raise Diverged(f"step {step}: the loss is {loss}.")
        if not self.highest:  # rows held out may be easier than those trained on
            self.highest = max(self.start_loss, loss)
        self.streak = self.streak + 1 if loss > MARGIN * self.highest else 0
        if self.streak >= self.patience:
            raise Diverged(
                f"step {step}: the loss ({loss:.2f}) has been above its start "
                f"({self.highest:.2f}) for {self.streak} steps: the model is being destroyed."
            )

    def check_weights(self, model: torch.nn.Module, step: int) -> None:
        """Look at the trained weights before they are saved.

        Raises:
            Diverged: one is not a number. The loss would say so only after the next step.
        """
        trained = ((n, p) for n, p in model.named_parameters() if p.requires_grad)
        broken = next((name for name, p in trained if not bool(p.isfinite().all())), None)
        if broken:
            raise Diverged(f"step {step}: {broken} holds values that are no numbers.")

    def check_end(self, loss: float, steps: int) -> None:
        """Look at the loss after the last step.

        Raises:
            Diverged: it is above the start, or not a number.
        """
        if not loss <= MARGIN * self.start_loss:
            raise Diverged(
                f"after {steps} steps the loss is {loss:.2f}; before them it was "
                f"{self.start_loss:.2f}: the training made the model worse."
            )


class Events:
    """``events.jsonl``: one line a step, flushed, so that a killed run tells how far it came."""

    def __init__(self, path: Path, resume_after: int) -> None:
        """Open the file; lines after step ``resume_after`` are forgotten, they will come again."""
        self._path = path
        kept = [e for e in read_events(path) if resume_after and e.get("step", 0) <= resume_after]
        write_text(path, "".join(json.dumps(event) + "\n" for event in kept))
        self._file: TextIO = path.open("a", encoding="utf-8")

    def write(self, event: Mapping[str, Any]) -> None:
        """Append one event."""
        self._file.write(json.dumps(event) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_events(path: Path) -> list[dict[str, Any]]:
    """Every whole event of a file; the last line of a killed run may be cut short."""
    if not path.is_file():
        return []
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            events.append(event)
    return events
