"""Writing so that no crash leaves half of it, and folders that one process holds."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

PARTIAL = ".partial"
"""Ends the name of what is not written completely yet."""


def write_beside(path: Path, content: bytes) -> None:
    """Put content in place of what was there, all of it or nothing, and onto the disk."""
    beside = path.with_name(path.name + PARTIAL)
    with beside.open("wb") as file:
        file.write(content)
        sync(file)
    beside.replace(path)
    sync_folder(path.parent)


def sync(file: IO[bytes]) -> None:
    """Put what was written onto the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Put the folder's names onto the disk: until then a crash may take a file that is there."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def locked(path: Path) -> IO[bytes]:
    """A file that this process alone holds, until it is closed.

    Raises:
        BlockingIOError: another holds it.
    """
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        file.close()
        raise
    return file
