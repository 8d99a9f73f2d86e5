"""Checkpoints that are whole or ignored, and the question whether one may be resumed."""

import json
import shutil
from pathlib import Path

from llmkit.errors import UsageError
from llmkit.files import write_json
from llmkit.run import Inputs, differences

WHOLE = "whole.json"
"""Written last into a checkpoint; without it, or with sizes that differ, it was cut short."""


def mark_whole(checkpoint: Path) -> None:
    """Record that every file of a checkpoint was written, with its size."""
    files = [path for path in checkpoint.rglob("*") if path.is_file() and path.name != WHOLE]
    sizes = {str(path.relative_to(checkpoint)): path.stat().st_size for path in sorted(files)}
    write_json(checkpoint / WHOLE, sizes)


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end and still has every file at its size."""
    try:
        sizes = json.loads((checkpoint / WHOLE).read_text(encoding="utf-8"))
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def step_of(checkpoint: Path) -> int:
    """The optimiser step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def all_checkpoints(folder: Path) -> list[Path]:
    """Every checkpoint folder, whole or not, oldest step first."""
    return sorted(folder.glob("checkpoint-*"), key=step_of)


def last_whole(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end."""
    return next((path for path in reversed(all_checkpoints(folder)) if is_whole(path)), None)


def keep_newest(folder: Path, count: int) -> None:
    """Remove broken checkpoints and all but the newest whole ones."""
    whole = [path for path in all_checkpoints(folder) if is_whole(path)]
    for path in all_checkpoints(folder):
        if path not in whole[-count:]:
            shutil.rmtree(path)


def prepare_folder(folder: Path, inputs: Inputs, finished: Inputs | None) -> Path | None:
    """Decide between resuming and starting anew.

    Args:
        folder: the run's ``checkpoints``.
        inputs: what this training depends on.
        finished: the inputs of the training that the manifest records as done, if any.

    Returns:
        The checkpoint to resume from, or None to start from the first step.

    Raises:
        UsageError: unfinished checkpoints of another training are there; resuming them would mix
            two trainings. The message shows what differs.
    """
    note = folder / "inputs.json"
    before = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else None
    if before is not None and before != inputs and before != finished and last_whole(folder):
        changed = "\n  ".join(differences(before, inputs))
        raise UsageError(
            f"{folder}: holds an unfinished training (step {_newest_step(folder)}) that was "
            f"started with other inputs:\n  {changed}\nGo back to those inputs to finish it, use "
            f"another name (name=...), or remove {folder} to start anew."
        )
    if before is None or before != inputs or before == finished:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(note, inputs)
    return last_whole(folder)


def _newest_step(folder: Path) -> int:
    newest = last_whole(folder)
    return step_of(newest) if newest else 0
