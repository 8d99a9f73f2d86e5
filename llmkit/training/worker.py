"""One process of a training: ``python -m llmkit.training.worker JOB``, started by a launcher.

The first of them writes what a training leaves, and its view's lines where the command that a
person started reads them. A process that fails leaves its reason and ends at once; the launcher
then ends the others, who would wait for it.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import psutil

from data_prep.prepared import PreparedDataset
from llmkit.files import write_json
from llmkit.models.settings import ModelConfig
from llmkit.training import processes
from llmkit.training.settings import TrainingConfig
from llmkit.training.train import Places, train

MESSAGES = "messages.jsonl"
"""What the first process says, a line a call of its view."""
RESULT = "result.json"
"""The figures of a training that ended well."""
SECONDS_BETWEEN_LOOKS = 1.0


class Relay:
    """A view that writes down what it is told."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def step(self, event: Mapping[str, Any], total_steps: int) -> None:
        """One optimiser step is done."""
        self._write({"step": dict(event), "total_steps": total_steps})

    def say(self, text: str) -> None:
        """Something else happened."""
        self._write({"say": text})

    def _write(self, message: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(message) + "\n")
        self._file.flush()


class Unheard:
    """The view of every process but the first."""

    def step(self, event: Mapping[str, Any], total_steps: int) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""


def work(job: Path) -> None:
    """Do one process's part of a job, and leave the figures if it is the first."""
    asked = json.loads(job.read_text(encoding="utf-8"))
    places = Places(**{name: Path(path) for name, path in asked["places"].items()})
    with (job.parent / MESSAGES).open("a", encoding="utf-8") as file:
        figures = train(
            TrainingConfig.model_validate(asked["training"]),
            ModelConfig.model_validate(asked["model"]),
            PreparedDataset.open(Path(asked["data"])),
            places,
            Relay(file) if processes.is_first() else Unheard(),
            resume_from=Path(asked["resume_from"]) if asked["resume_from"] else None,
        )
    processes.wait()
    if processes.is_first():
        write_json(job.parent / RESULT, figures)


def failure_path(folder: Path, rank: int) -> Path:
    """Where a process leaves why it failed."""
    return folder / f"failure-{rank}.json"


def end_with_the_command(command: int) -> None:
    """End this process, and so the others, when the command that a person started is gone.

    Args:
        command: its process id; the launcher between it and this process outlives it.
    """
    launcher = os.getppid()

    def look() -> None:
        while os.getppid() == launcher and _parent_of(launcher) == command:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os._exit(1)

    threading.Thread(target=look, name="command-watch", daemon=True).start()


def _parent_of(process: int) -> int | None:
    try:
        return int(psutil.Process(process).ppid())
    except psutil.Error:
        return None


def main() -> None:
    """Work, and leave the reason where it fails."""
    job = Path(sys.argv[1])
    rank = int(os.environ["RANK"])
    if command := os.environ.get(COMMAND):
        end_with_the_command(int(command))
    try:
        processes.join(json.loads(job.read_text(encoding="utf-8"))["device"])
        work(job)
        processes.leave()
    except Exception as error:
        known = getattr(error, "exit_code", None)
        reason = {"kind": type(error).__name__, "message": str(error), "exit_code": known}
        write_json(failure_path(job.parent, rank), {**reason, "at": time.time()})
        if known is None:
            import traceback

            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(known or 1)  # not through exit handlers that wait for the other processes


COMMAND = "LLMKIT_COMMAND_PID"

if __name__ == "__main__":
    main()
