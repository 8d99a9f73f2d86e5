"""What a training adds up while it runs, and when it stops."""

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import psutil
import torch

from llmkit.errors import LlmkitError
from llmkit.training import processes
from llmkit.training.objective import Counts, Loss
from llmkit.training.settings import EarlyStopping

MARGIN = 1.2
"""A step's loss counts as above the start when it is more than this times the start's,"""
SLACK = 0.1
"""and by more than this, nats: a loss that starts as nearly nothing, such as the divergence from a
teacher that is followed already, is many times as much in a healthy training."""


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


class Meter:
    """Sums up one optimiser step over its forward passes.

    Sums stay on the device until the step is closed: reading one would wait for the GPU.
    """

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: Counts = {}
        self._tokens = 0
        self._began = time.monotonic()
        self.last: dict[str, Any] = {}
        """What the last closed step came to."""

    def add(self, loss: Loss, counts: Counts, tokens: int, *, counted: bool = True) -> None:
        """Count one forward pass, or only name its figures: processes add up the same names."""
        for name, part in {"loss": loss.value, **loss.figures}.items():
            self._sums[name] = self._sums.get(name, 0.0) + part.detach().float() * counted
        for name, count in counts.items():
            self._counts[name] = self._counts.get(name, 0) + count
        self._tokens += tokens * counted

    def restart(self) -> None:
        """Begin a step's time now."""
        self._began = time.monotonic()

    def close(self) -> dict[str, Any]:
        """The step's loss and figures, counts, tokens and seconds; starts the next one.

        With several processes they are those of all together.
        """
        sums = processes.total({name: float(part) for name, part in self._sums.items()})
        counts = processes.total({"tokens": self._tokens, **self._counts})
        now = time.monotonic()
        self.last = {
            **sums,
            **{name: int(number) for name, number in counts.items()},
            "seconds": round(now - self._began, 4),
        }
        self._sums, self._counts, self._tokens, self._began = {}, {}, 0, now
        return self.last


class Guard:
    """Stops a training whose loss is not a number, or stays above where it started."""

    def __init__(
        self, start_loss: float, patience: int, before: Iterable[Mapping[str, Any]] = ()
    ) -> None:
        """Take the loss before the first step, and the steps that a resumed training made before.

        Raises:
            Diverged: it is not a number: the model or the data is broken, not the training.
        """
        if not math.isfinite(start_loss):
            raise Diverged(f"the loss before the first step is {start_loss}: check the base model.")
        self.start_loss = start_loss
        self.highest = 0.0
        self.patience = patience
        self.streak = 0
        self._seen: dict[int, bool] = {}
        """After which steps a loss was measured with the weights of then, and whether all such
        losses were good."""
        for event in before:
            if event["event"] == "step":
                self.check(event["loss"], event["step"])
            elif event["event"] == "validation":
                self.see_validation(event["loss"], event["step"])

    def is_good(self, step: int) -> bool:
        """Whether a loss was measured with the weights after a step, and was where it should be."""
        return self._seen.get(step, False)

    def see_validation(self, loss: float, step: int) -> None:
        """Take in what a validation after a step found; it stops nothing."""
        self._see(step, good=loss <= _limit(self.start_loss))

    def _see(self, step: int, *, good: bool) -> None:
        self._seen[step] = good and self._seen.get(step, True)

    def check(self, loss: float, step: int) -> None:
        """Look at one step's loss, which is that of the weights before it.

        Raises:
            Diverged: NaN or infinity at once; above the start after ``patience`` steps in a row.
        """
        if not math.isfinite(loss):
            self._see(step - 1, good=False)
            raise Diverged(f"step {step}: the loss is {loss}.")
        if not self.highest:  # rows held out may be easier than those trained on
            self.highest = max(self.start_loss, loss)
        good = loss <= _limit(self.highest)
        self._see(step - 1, good=good)
        self.streak = 0 if good else self.streak + 1
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
        parts = ((name, processes.local_part(p)) for name, p in trained)
        broken = next((name for name, part in parts if not bool(part.isfinite().all())), None)
        if processes.largest(broken is not None):
            held = broken or "a weight of another process"
            raise Diverged(f"step {step}: {held} holds values that are no numbers.")

    def check_end(self, loss: float, steps: int) -> None:
        """Look at the loss after the last step.

        Raises:
            Diverged: it is above the start, or not a number.
        """
        good = loss <= _limit(self.start_loss)
        self._see(steps, good=good)
        if not good:
            raise Diverged(
                f"after {steps} steps the loss is {loss:.2f}; before them it was "
                f"{self.start_loss:.2f}: the training made the model worse."
            )


def _limit(start: float) -> float:
    """The most that a loss may be which has not risen above its start."""
    return max(MARGIN * start, start + SLACK)


class Best:
    """Which evaluation was the best, and whether it is time to stop."""

    def __init__(self, stopping: EarlyStopping | None, events: Iterable[Mapping[str, Any]]) -> None:
        """Start from the evaluations that a resumed training made before."""
        self._stopping = stopping
        self.step: int | None = None
        self.loss = math.inf
        self._misses = 0
        for event in events:
            if event["event"] == "validation" and event["step"]:
                self.see(event["step"], event["loss"])

    def see(self, step: int, loss: float) -> None:
        """Take one evaluation in; the end's may be that of the last step once more."""
        enough = self._stopping.min_delta if self._stopping else 0.0
        if loss < self.loss - enough:
            self._misses = 0
        elif step != self.step:
            self._misses += 1
        if loss < self.loss:
            self.step, self.loss = step, loss

    @property
    def exhausted(self) -> bool:
        """Whether too many evaluations in a row were no better."""
        return self._stopping is not None and self._misses >= self._stopping.evaluations
