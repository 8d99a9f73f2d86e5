"""Where else the figures of a training go; ``events.jsonl`` has all of them in any case.

The Trainer's own integrations talk to the trackers. Here is decided what they are told beside the
steps (validation losses), where their files are, and that nothing leaves the machine which nobody
asked to send: a tracker's own usage reports, or a run that only its name would upload.
"""

import importlib
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from llmkit.errors import UsageError
from llmkit.training.settings import Tracker

PROJECT = "llmkit"
FOLDER = "trackers"
"""In the run directory: what trackers write that have no place of their own."""
EVALUATED = "eval_"
"""How the integrations tell a validation's figures from a step's."""

Tell = Callable[[Mapping[str, float]], None]
"""Passes figures on to the trackers."""


def refuse_missing(trackers: Sequence[Tracker]) -> None:
    """Look whether every tracker is installed.

    Raises:
        UsageError: one is not.
    """
    for tracker in trackers:
        if importlib.util.find_spec(tracker) is None:
            raise UsageError(
                f"training.trackers: {tracker} is not installed. "
                f"`pip install 'llmkit[trackers]'` brings it."
            )


def validation_figures(found: Mapping[str, float]) -> dict[str, float]:
    """A validation's figures by the names that trackers know them by."""
    return {f"{EVALUATED}{name}": value for name, value in found.items()}


@contextmanager
def tracking(trackers: Sequence[Tracker], run_folder: Path, *, fresh: bool) -> Iterator[None]:
    """Set trackers up for one training, and end their runs with it.

    Whatever is set in the environment is left as it is.

    Args:
        trackers: those that were asked for.
        run_folder: the run directory; its name is the run's name in every tracker.
        fresh: whether the training begins anew, so that what an earlier one left is removed.

    Raises:
        UsageError: a tracker refuses, for want of a key or of its server.
    """
    folder = run_folder.absolute() / FOLDER
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    if trackers:
        folder.mkdir(parents=True, exist_ok=True)
    wanted = {name: value for name, value in _settings(folder).items() if name not in os.environ}
    os.environ.update(wanted if trackers else {})
    failed = True
    try:
        yield
        failed = False
    except Exception as error:
        package = type(error).__module__.partition(".")[0]
        if package not in trackers:
            raise
        raise UsageError(
            f"training.trackers: {package} refuses: {str(error).strip() or type(error).__name__}\n"
            "Training needs no tracker: training.trackers=[] leaves them all out."
            + (" WANDB_MODE=offline keeps the figures here." if package == "wandb" else "")
        ) from error
    finally:
        for tracker in trackers:
            _end(tracker, failed=failed)
        for name in wanted:
            os.environ.pop(name, None)


def _settings(folder: Path) -> dict[str, str]:
    return {
        "TENSORBOARD_LOGGING_DIR": str(folder / "tensorboard"),
        "WANDB_DIR": str(folder),
        "WANDB_PROJECT": PROJECT,
        "WANDB_MODE": "offline",  # `wandb sync` sends it later
        "WANDB_SILENT": "true",
        "WANDB_CONSOLE": "off",
        "WANDB_DISABLE_CODE": "true",
        "WANDB_DISABLE_GIT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "MLFLOW_EXPERIMENT_NAME": PROJECT,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GRADIO_ANALYTICS_ENABLED": "False",  # of trackio's server
    }


def _end(tracker: Tracker, *, failed: bool) -> None:
    """End what is still open; the integrations end their runs only after a training that ended."""
    with suppress(Exception):  # a tracker that fails at its end has had every figure
        package: Any = importlib.import_module(tracker)
        if tracker == "wandb" and package.run is not None:
            package.finish(exit_code=int(failed))
        elif tracker == "mlflow" and package.active_run() is not None:
            package.end_run("FAILED" if failed else "FINISHED")
        elif tracker == "trackio" and failed:
            package.finish()
