"""Checkpoints that are whole or ignored, and the question whether one may be resumed."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xxhash

from llmkit.errors import UsageError
from llmkit.files import flush, write_json
from llmkit.run import Inputs, differences

WHOLE = "whole.json"
"""Written last into a checkpoint: the size and hash of every file. Without it, or with other sizes,
it was cut short."""


NOTE = "inputs.json"
"""What the training in a folder depends on, and which finished one it came after."""


def mark_whole(checkpoint: Path) -> None:
    """Record that every file of a checkpoint was written, with its size and hash."""
    files = [path for path in checkpoint.rglob("*") if path.is_file() and path.name != WHOLE]
    for path in files:
        flush(path)  # or a power cut could leave the mark without what it vouches for
    found = {str(path.relative_to(checkpoint)): _written(path) for path in sorted(files)}
    write_json(checkpoint / WHOLE, found)


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end and still has every file at its size."""
    found = _read(checkpoint / WHOLE)
    try:
        return bool(found) and all(
            (checkpoint / name).stat().st_size == written["bytes"]
            for name, written in found.items()
        )
    except (OSError, TypeError, KeyError):
        return False


def damage(checkpoint: Path) -> str | None:
    """What keeps a checkpoint from being resumed; None when every file is as it was written."""
    if not is_whole(checkpoint):
        return "it was cut short, or files are missing"
    found = _read(checkpoint / WHOLE)
    changed = [name for name, written in found.items() if _written(checkpoint / name) != written]
    return f"{', '.join(changed)} changed since" if changed else None


def _written(path: Path) -> dict[str, Any]:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return {"bytes": path.stat().st_size, "xxh3": digest.hexdigest()}


def step_of(checkpoint: Path) -> int:
    """The optimiser step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def all_checkpoints(folder: Path) -> list[Path]:
    """Every checkpoint folder, whole or not, oldest step first."""
    named = [path for path in folder.glob("checkpoint-*") if re.search(r"-\d+$", path.name)]
    return sorted(named, key=step_of)


def last_whole(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end."""
    return next((path for path in reversed(all_checkpoints(folder)) if is_whole(path)), None)


def keep_newest(folder: Path, count: int, best: int | None = None) -> None:
    """Remove broken checkpoints and all but the newest whole ones, if there is a whole one.

    The one after step ``best`` is kept besides.
    """
    whole = [path for path in all_checkpoints(folder) if is_whole(path)]
    kept = whole[-count:] + [path for path in whole[:-count] if step_of(path) == best]
    for path in all_checkpoints(folder) if kept else []:
        if path not in kept:
            shutil.rmtree(path)


def prepare_folder(
    folder: Path, inputs: Inputs, finished: str | None, say: Callable[[str], None]
) -> Path | None:
    """Decide between resuming and starting anew.

    Args:
        folder: the run's ``checkpoints``.
        inputs: what this training depends on.
        finished: when the training that the manifest records as done ended, if there is one.
            Checkpoints from before then are its leftovers and are removed.
        say: told of checkpoints that cannot be resumed, which are removed.

    Returns:
        The checkpoint to resume from, or None to start from the first step.

    Raises:
        UsageError: unfinished checkpoints of another training are there; resuming them would mix
            two trainings. The message shows what differs.
    """
    note = _read(folder / NOTE)
    if note and note.get("after") == finished and note.get("inputs") == inputs:
        for path in reversed(all_checkpoints(folder)):
            if (problem := damage(path)) is None:
                return path
            say(f"checkpoint {path.name} is removed and not resumed: {problem}")
            shutil.rmtree(path)
        return None
    newest = last_whole(folder)
    if newest and note.get("after") == finished:
        changed = "\n  ".join(differences(note.get("inputs", {}), inputs))
        raise UsageError(
            f"{folder}: holds an unfinished training (step {step_of(newest)}) that was started "
            f"with other inputs:\n  {changed}\nGo back to those inputs to finish it, use another "
            f"name (name=...), or remove {folder} to start anew."
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / NOTE, {"inputs": inputs, "after": finished})
    return None


def inputs_of(folder: Path) -> Inputs:
    """What the training in a folder depends on; empty where there is none."""
    return _read(folder / NOTE).get("inputs", {})  # type: ignore[no-any-return]


def _read(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty when it is not there or is something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
