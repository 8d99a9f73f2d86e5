"""What a person sees: stages, progress bars, results; or JSON lines, or nothing."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import TimeRemainingColumn as Eta

from llmkit.run import Outcome


class View(Protocol):
    """Where a pipeline tells what it does."""

    def stage(self, name: str, text: str, outcome: Outcome) -> None:
        """A stage is done, or was skipped."""

    def step(self, event: Mapping[str, Any], total_steps: int) -> None:
        """An optimiser step is done."""

    def count(self, what: str, rows: int) -> None:
        """So many more rows went through a step of the preparation."""

    def say(self, text: str) -> None:
        """Something a person may want to know."""

    def working(self, text: str) -> Any:
        """A context in which something long is going on that cannot be counted."""

    def close(self) -> None:
        """Nothing more comes, because all is done or something failed."""


EVERY = 10.0
"""Seconds between two lines about one step where no counter can be drawn."""


@dataclass
class _Count:
    """How far a step is."""

    rows: int = 0
    task: TaskID | None = None
    began: float = field(default_factory=lambda: time.monotonic())
    said: float = field(default_factory=lambda: time.monotonic())

    def is_due(self) -> bool:
        """Whether it is time to say something again."""
        now = time.monotonic()
        due = now - self.said >= EVERY
        if due:
            self.said = now
        return due

    @property
    def rows_per_second(self) -> float:
        """Since the step began."""
        return self.rows / max(1e-9, time.monotonic() - self.began)


class TerminalView:
    """Lines and progress bars for people."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._bar: Progress | None = None
        self._task: Any = None
        self._counts: dict[str, _Count] = {}
        self._counters: Progress | None = None

    def stage(self, name: str, text: str, outcome: Outcome) -> None:
        """One line a stage."""
        self.close()
        how = "unchanged, skipped" if outcome.skipped else f"{outcome.seconds:.0f} s"
        self.console.print(
            f"[bold green]✓[/] [bold]{name:<9}[/] {escape(text)} [dim]({how})[/]",
            soft_wrap=not self.console.is_terminal,
        )

    def say(self, text: str) -> None:
        """An indented line."""
        self.console.print(f"  [dim]{escape(text)}[/]", soft_wrap=not self.console.is_terminal)

    def step(self, event: Mapping[str, Any], total_steps: int) -> None:
        """Move the training bar."""
        if self._bar is None:
            self._bar = Progress(
                TextColumn("  training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TextColumn("left"),
                Eta(),
                console=self.console,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=total_steps)
        speed = event["tokens"] / max(event["seconds"], 1e-9)
        self._bar.update(
            self._task,
            completed=event["step"],
            description=(
                f"loss [bold]{event['loss']:.3f}[/] · {speed:.0f} tokens/s · "
                f"{event['memory_mib'] / 1024:.1f} GiB"
            ),
        )
        if not self.console.is_terminal and event["step"] in _milestones(total_steps):
            self.console.print(
                f"  step {event['step']}/{total_steps}: loss {event['loss']:.3f}, "
                f"{speed:.0f} tokens/s, {event['memory_mib']} MiB"
            )
        if event["step"] >= total_steps:
            self.close()

    def count(self, what: str, rows: int) -> None:
        """Move the counter of a step; without a terminal, a line now and then."""
        if what not in self._counts:
            self._counts[what] = _Count()
        counted = self._counts[what]
        counted.rows += rows
        if self.console.is_terminal:
            if self._counters is None:
                self._counters = _counters(self.console)
            if counted.task is None:
                counted.task = self._counters.add_task(what, total=None)
            self._counters.update(counted.task, completed=counted.rows)
        elif counted.is_due():
            rate = counted.rows_per_second
            digits = 0 if rate >= 1 else 1
            self.say(f"{what}: {counted.rows:,} ({rate:.{digits}f}/s)")

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """A spinner; a plain line where there is no terminal."""
        if self.console.is_terminal:
            with self.console.status(f"{escape(text)} ..."):
                yield
        else:
            self.say(f"{text} ...")
            yield

    def close(self) -> None:
        """Take the bar away and show the cursor again."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self._counters is not None:
            self._counters.stop()
            self._counters = None
        self._counts.clear()


def _counters(console: Console) -> Progress:
    """Lines that count without knowing the end, gone when it is reached."""
    counters = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.completed:,.0f}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    counters.start()
    return counters


class JsonView:
    """One JSON object a line on standard output, for scripts."""

    def stage(self, name: str, text: str, outcome: Outcome) -> None:
        """The stage's figures."""
        self._print({"stage": name, "text": text, **vars(outcome)})

    def step(self, event: Mapping[str, Any], total_steps: int) -> None:
        """The step's figures."""
        self._print({**event, "total_steps": total_steps})

    def count(self, what: str, rows: int) -> None:
        """Nothing: the stage's figures say it."""

    def say(self, text: str) -> None:
        """A remark."""
        self._print({"note": text})

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """A remark before it begins."""
        self.say(text)
        yield

    def close(self) -> None:
        """Nothing is open."""

    def _print(self, value: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(value, default=str) + "\n")
        sys.stdout.flush()


class QuietView:
    """Nothing but errors."""

    def stage(self, name: str, text: str, outcome: Outcome) -> None:
        """Nothing."""

    def step(self, event: Mapping[str, Any], total_steps: int) -> None:
        """Nothing."""

    def count(self, what: str, rows: int) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """Nothing."""
        del text
        yield

    def close(self) -> None:
        """Nothing."""


def choose_view(quiet: bool, as_json: bool) -> View:  # noqa: FBT001
    """The view that the options ``--quiet`` and ``--json`` ask for."""
    if quiet:
        return QuietView()
    return JsonView() if as_json else TerminalView()


def _milestones(total: int) -> set[int]:
    """About ten steps worth a line where no bar can be drawn."""
    return {1, total, *(round(total * tenth / 10) for tenth in range(1, 10))}
