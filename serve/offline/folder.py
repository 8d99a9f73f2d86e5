"""The batches' folder: what is where, and that one server uses it.

batches_folder/
  lock                    held by the one server that uses the folder
  files/<id>.json         `FileRecord`
  files/<id>.jsonl        the content
  batches/<id>/batch.json `BatchRecord`
  batches/<id>/*.jsonl    answers and errors so far; moved to files/ when the batch ends
"""

from __future__ import annotations

from pathlib import Path

from serve.disk import locked
from serve.errors import ServeError


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
            self._lock = locked(self.root / "lock")
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
