"""Checkpoints that are whole or ignored, and the question whether one may be resumed."""

import json
import re
import shutil
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
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
DIVERGED = "diverged.json"
"""Why the training in a folder was stopped, and its last good step; not there if it was not."""


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


def last_good(folder: Path, is_good: Callable[[int], bool]) -> Path | None:
    """The newest whole checkpoint of which ``is_good`` says that the loss after its step was."""
    whole = (path for path in reversed(all_checkpoints(folder)) if is_whole(path))
    return next((path for path in whole if is_good(step_of(path))), None)


def goes_on_from(folder: Path) -> str:
    """Where the same command will go on, as a sentence."""
    newest = last_whole(folder)
    if newest is None:
        return "No checkpoint was written yet: the same command begins anew."
    return f"The same command goes on from {newest}."


def keep_newest(folder: Path, count: int, besides: Collection[int] = ()) -> None:
    """Remove broken checkpoints and all but the newest whole ones, if there is a whole one.

    Those after the steps ``besides`` are kept as well.
    """
    whole = [path for path in all_checkpoints(folder) if is_whole(path)]
    kept = whole[-count:] + [path for path in whole[:-count] if step_of(path) in besides]
    for path in all_checkpoints(folder) if kept else []:
        if path not in kept:
            shutil.rmtree(path)


@dataclass(frozen=True)
class Divergence:
    """How a training ended that was stopped because its loss had gone wrong."""

    why: str
    good_step: int | None
    """Of the last checkpoint that was saved while the loss was good; None when none was."""


def note_divergence(folder: Path, found: Divergence) -> None:
    """Leave a word beside the checkpoints, for the next training that finds them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / DIVERGED, asdict(found))


def _divergence(folder: Path) -> Divergence | None:
    found = _read(folder / DIVERGED)
    why, step = found.get("why"), found.get("good_step")
    if not isinstance(why, str) or not isinstance(step, int | None):
        return None
    return Divergence(why, step)


def prepare_folder(
    folder: Path, inputs: Inputs, finished: str | None, say: Callable[[str], None]
) -> Path | None:
    """Decide between resuming and starting anew.

    Args:
        folder: the run's ``checkpoints``.
        inputs: what this training depends on.
        finished: when the training that the manifest records as done ended, if there is one.
            Checkpoints from before then are its leftovers and are removed.
        say: told of checkpoints that cannot be resumed, which are removed: damaged ones, and those
            of a training that diverged, after its last good one.

    Returns:
        The checkpoint to resume from, or None to start from the first step.

    Raises:
        UsageError: unfinished checkpoints of another training are there; resuming them would mix
            two trainings. The message shows what differs.
    """
    note = _read(folder / NOTE)
    unfinished = note.get("after") == finished
    diverged = _divergence(folder) if unfinished else None
    if note and unfinished and note.get("inputs") == inputs:
        if diverged:
            _forget(folder, diverged, say)
        for path in reversed(all_checkpoints(folder)):
            if (problem := damage(path)) is None:
                return path
            say(f"checkpoint {path.name} is removed and not resumed: {problem}")
            shutil.rmtree(path)
        return None
    newest = _worth_keeping(folder, diverged) if unfinished else None
    if newest:
        changed = "\n  ".join(differences(note.get("inputs", {}), inputs))
        what = (
            f"a training that was stopped, with a good checkpoint (step {step_of(newest)}), and"
            if diverged
            else f"an unfinished training (step {step_of(newest)}) that"
        )
        back = "Use another" if diverged else "Go back to those inputs to finish it, use another"
        raise UsageError(
            f"{folder}: holds {what} was started with other inputs:\n  {changed}\n{back} name "
            f"(name=...), or remove {folder} to start anew."
        )
    if diverged:
        _forget(folder, diverged, say)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / NOTE, {"inputs": inputs, "after": finished})
    return None


def _worth_keeping(folder: Path, diverged: Divergence | None) -> Path | None:
    """The newest checkpoint that starting anew would lose."""
    if diverged is None:
        return last_whole(folder)
    return last_good(folder, lambda step: step <= (diverged.good_step or 0))


def _forget(folder: Path, diverged: Divergence, say: Callable[[str], None]) -> None:
    """Remove what a training that diverged left after its last good checkpoint."""
    good = _worth_keeping(folder, diverged)
    ruined = [path for path in all_checkpoints(folder) if not good or step_of(path) > step_of(good)]
    for path in ruined:
        shutil.rmtree(path)
    (folder / DIVERGED).unlink()
    left = f"after its last good checkpoint, {good.name}, it" if good else "it"
    say(
        f"the training before this one was stopped: {diverged.why} What {left} left is removed"
        + (f": {', '.join(path.name for path in ruined)}." if ruined else ".")
    )


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
