"""Training in several processes, started and watched.

llmkit train            run lock, data, manifest, what a person sees
  accelerate launch     one on every machine; sets the processes' ranks, ends all when one fails
    worker 0            trains, writes events, checkpoints and the result
    worker 1 ...        train
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path
from typing import Any, TextIO

from data_prep.prepared import PreparedDataset
from llmkit.errors import CheckFailed, LlmkitError, UsageError
from llmkit.files import write_json
from llmkit.models.settings import ModelConfig
from llmkit.training.checkpoints import goes_on_from
from llmkit.training.process_settings import Processes
from llmkit.training.progress import Diverged, TrainingView
from llmkit.training.settings import TrainingConfig
from llmkit.training.train import Places
from llmkit.training.worker import COMMAND, MESSAGES, RESULT, failure_path

FOLDER = "processes"
"""In a run directory: the job of its processes, and what became of it."""
JOB = "job.json"
LOG = "output.log"
WORKER = "llmkit.training.worker"
SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_TO_END = 30.0


def train_together(
    asked: Processes,
    config: TrainingConfig,
    model_config: ModelConfig,
    prepared: PreparedDataset,
    places: Places,
    view: TrainingView,
    *,
    device: str,
    resume_from: Path | None,
    folder: Path,
) -> dict[str, Any]:
    """Train in several processes; otherwise as `llmkit.training.train.train`.

    Args:
        asked: how many, and where.
        config: how.
        model_config: quantisation and device.
        prepared: packed sequences.
        places: folders and files, on a file system that all machines share.
        view: where a person watches.
        device: ``cuda`` or ``cpu``.
        resume_from: a whole checkpoint of this very training, or None.
        folder: for the job, its log, and why it failed; emptied first.

    Raises:
        LlmkitError: what a process raised, or that it was killed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MESSAGES).touch()
    write_job(folder / JOB, config, model_config, prepared, places, device, resume_from)
    view.say(
        f"training in {asked.count} processes ({asked.config.stem}, {asked.machines} machines)"
    )
    try:
        _run(asked, folder, device, view)
    except KeyboardInterrupt:
        view.say(f"interrupted. {goes_on_from(places.checkpoints)}")
        raise
    figures: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return figures


def write_job(
    path: Path,
    config: TrainingConfig,
    model_config: ModelConfig,
    prepared: PreparedDataset,
    places: Places,
    device: str,
    resume_from: Path | None,
) -> None:
    """Write down for the processes what a training is given."""
    job = {
        "training": config.model_dump(mode="json"),
        "model": model_config.model_dump(mode="json"),
        "data": str(prepared.folder.resolve()),
        "places": {name: str(place.resolve()) for name, place in vars(places).items() if place},
        "resume_from": str(resume_from.resolve()) if resume_from else None,
        "device": device,
    }
    write_json(path, job)


def help_train(asked: Processes, folder: Path, device: str, view: TrainingView) -> None:
    """Be one of the other machines: run this one's processes of a job that the first wrote.

    Raises:
        LlmkitError: a process of this machine failed, or the first machine does not answer.
    """
    view.say(f"machine {asked.machine_rank} of {asked.machines}: training as the first one says")
    _run(asked, folder, device, view)


def _run(asked: Processes, folder: Path, device: str, view: TrainingView) -> None:
    log, messages = folder / LOG, folder / MESSAGES
    if asked.machine_rank:  # what is in the folder is the first machine's
        log, messages = (
            folder.with_name(f"{folder.name}-{asked.machine_rank}.log"),
            Path(os.devnull),
        )
    began = time.time()
    with log.open("wb") as output, messages.open(encoding="utf-8") as said:
        process = subprocess.Popen(
            _command(asked, folder / JOB),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(asked, device),
            start_new_session=True,  # the terminal's Ctrl-C is for this process to handle
        )
        try:
            while process.poll() is None:
                _show(said, view)
                time.sleep(SECONDS_BETWEEN_LOOKS)
            _show(said, view)
        finally:
            _end(process)
    if process.returncode:
        raise _reason(asked, folder, log, began)


def _command(asked: Processes, job: Path) -> list[str]:
    settings = ["--config_file", str(asked.config), "--num_processes", str(asked.count)]
    settings += ["--mixed_precision", "no"]  # computing in bfloat16 is ours, with float32 weights
    if asked.machines == 1:
        settings += ["--main_process_port", "0"]  # any that is free
    launcher = [sys.executable, "-m", "accelerate.commands.launch", *settings]
    return [*launcher, "--module", WORKER, str(job)]


def _environment(asked: Processes, device: str) -> dict[str, str]:
    threads = max(1, (os.cpu_count() or 1) // asked.here)
    found = {"OMP_NUM_THREADS": str(threads), **os.environ, COMMAND: str(os.getpid())}
    root = str(Path(str(resources.files("llmkit"))).parent)
    found["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    if device == "cpu":
        found["ACCELERATE_USE_CPU"] = "true"
    return found


def _show(said: TextIO, view: TrainingView) -> None:
    """Hand on what the first process said since the last time."""
    while True:
        here = said.tell()
        line = said.readline()
        if not line.endswith("\n"):  # nothing more, or the rest of it is still to come
            said.seek(here)
            return
        message = json.loads(line)
        if "say" in message:
            view.say(message["say"])
        else:
            view.step(message["step"], message["total_steps"])


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the launcher and what it started, by force where that takes too long."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_END)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _reason(asked: Processes, folder: Path, log: Path, began: float) -> LlmkitError:
    """Why a launcher failed, as one error of the process that began it."""
    failures = {}
    for rank in range(asked.count):
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(failure_path(folder, rank).read_text(encoding="utf-8"))
            if found["at"] >= began:
                failures[rank] = found
    for found in failures.values():
        if found["exit_code"] is not None:  # one of ours, which says all there is to say
            return _error(found)
    text = log.read_text(encoding="utf-8", errors="replace")
    killed = [(int(r), int(code)) for r, code in _KILLED.findall(text) if int(code) not in (-15, 1)]
    if killed:
        rank, code = killed[0]
        memory = ", as systems do with one that takes too much memory" if code == -9 else ""
        return LlmkitError(
            f"process {rank} of {asked.count} was ended by {signal.Signals(-code).name}{memory}. "
            "The last whole checkpoint is kept: run the same command again to go on from it. All "
            f"output is in {log}."
        )
    if failures:
        rank, first = min(failures.items(), key=lambda each: each[1]["at"])
        return LlmkitError(
            f"process {rank} of {asked.count} failed: {first['kind']}: {first['message']}\n"
            f"All output is in {log}."
        )
    tail = "\n".join(text.strip().splitlines()[-5:])
    return LlmkitError(f"the processes ended without a reason. Their output, {log}, ends:\n{tail}")


_KILLED = re.compile(r"rank\s*: (\d+) \(local_rank: \d+\)\s*exitcode\s*: (-\d+) ")


def _error(found: dict[str, Any]) -> LlmkitError:
    if found["kind"] == Diverged.__name__:
        return Diverged(found["message"])
    kinds = {UsageError.exit_code: UsageError, CheckFailed.exit_code: CheckFailed}
    return kinds.get(found["exit_code"], LlmkitError)(found["message"])
