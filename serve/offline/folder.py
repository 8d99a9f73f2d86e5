"""The batches' folder, and how things are written there so that no crash leaves half of one.

batches_folder/
  lock                    held by the one server that uses the folder
  files/<id>.json         `FileRecord`
  files/<id>.jsonl        the content
  batches/<id>/batch.json `BatchRecord`
  batches/<id>/*.jsonl    answers and errors so far; moved to files/ when the batch ends
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from serve.errors import ServeError

PARTIAL = ".partial"
"""Ends the name of what is not written completely yet."""


class BatchesFolderNotUsable(ServeError):
    """The batches' folder cannot be used."""

    def __init__(self, folder: Path, problem: str) -> None:
        super().__init__(f"batches_folder {folder}: {problem}")


class Folder:
    """The folder, held by this process until `close`."""

    def __init__(self, path: Path) -> None:
        """Make the folder if it is not there, and take it.

        Raises:
            BatchesFolderNotUsable: it cannot be written, or another server has it.
        """
        self.root = path.expanduser().resolve()
        self.files, self.batches = self.root / "files", self.root / "batches"
        try:
            for folder in (self.files, self.batches):
                # Prompts and answers are their senders' alone.
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _locked(self.root / "lock")
        except BlockingIOError:
            raise BatchesFolderNotUsable(
                self.root, "another server uses it. Each server needs a folder of its own."
            ) from None
        except OSError as error:
            raise BatchesFolderNotUsable(
                self.root,
                f"{error.strerror or error}. Give a folder that this user may write to.",
            ) from error

    def close(self) -> None:
        """Let another server have it."""
        self._lock.close()


def write_beside(path: Path, content: bytes) -> None:
    """Put content in place of what was there, all of it or nothing, and onto the disk."""
    beside = path.with_name(path.name + PARTIAL)
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put the folder's names onto the disk: until then a crash may take a file that is there."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked(path: Path) -> IO[bytes]:
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        file.close()
        raise
    return file
