"""The adapters' folder: what was loaded from it, kept as it was, and the record of it.

    adapters_folder/
      my-run/ ...             where adapters are loaded from; never written to
      .served/
        served.json           `State`
        lock                  held by the one server that uses the folder
        base.json             the base's hash, remembered
        <sha256>/             a copy of each adapter that is served, named by its content

Copies make a version the same after its run was trained again. And vLLM tells cached prefixes of
adapters apart by name and folder: a folder named by its content never serves another's cache.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from serve.adapters.copying import copy_adapter
from serve.adapters.places import Source
from serve.adapters.state import State
from serve.disk import locked, sync_folder, write_beside
from serve.errors import ServeError

_OURS = ".served"


class AdaptersFolderNotUsable(ServeError):
    """The adapters' folder cannot be used."""

    def __init__(self, folder: Path, problem: str) -> None:
        super().__init__(f"adapters_folder {folder}: {problem}")


class Store:
    """An adapters' folder, held by this process until it ends."""

    def __init__(self, folder: Path) -> None:
        """Take the folder.

        Raises:
            AdaptersFolderNotUsable: it is not there, cannot be written, another server has it,
                or its record is damaged.
        """
        self.root = folder.expanduser().resolve()
        self._ours = self.root / _OURS
        self._lock = self._take()
        self.state = self._read()

    @property
    def memory(self) -> Path:
        """Where the base's hash is remembered."""
        return self._ours / "base.json"

    def folder_of(self, sha256: str) -> Path:
        """Where the copy of an adapter is."""
        return self._ours / sha256

    def save(self, state: State) -> None:
        """Put a state in place of the one before, on the disk and here."""
        write_beside(self._record, state.model_dump_json(indent=2).encode() + b"\n")
        self.state = state

    @contextmanager
    def copy(self, source: Source) -> Iterator[tuple[Path, str]]:
        """A copy of an adapter to look at, and the hash of the folder that it is from.

        It is gone after the block unless it was kept.

        Raises:
            AdapterRefused: there are links in the folder, or it can't be read.
        """
        beside = Path(tempfile.mkdtemp(prefix="incoming-", dir=self._ours))
        try:
            yield beside, copy_adapter(self.root, source.adapter, beside)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def keep(self, copy: Path, sha256: str) -> None:
        """Keep a copy under the hash of its content; the record that names it comes after."""
        if not self.folder_of(sha256).exists():
            copy.rename(self.folder_of(sha256))
            sync_folder(self._ours)

    def forget_unserved(self, still: Collection[str] = ()) -> None:
        """Remove the copies of adapters that are served no more, but those of ``still``."""
        needed = {*still, *(record.sha256 for record in self.state.served().values())}
        for folder in self._ours.iterdir():
            if folder.is_dir() and folder.name not in needed:
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Give the folder back."""
        self._lock.close()

    @property
    def _record(self) -> Path:
        return self._ours / "served.json"

    def _take(self) -> IO[bytes]:
        if not self.root.is_dir():
            raise AdaptersFolderNotUsable(
                self.root, "there is no such folder. Make it, or name another."
            )
        if self._ours.is_symlink():
            raise AdaptersFolderNotUsable(
                self.root, f"its {_OURS} is a link; what it leads to is not written to. Remove it."
            )
        try:
            self._ours.mkdir(exist_ok=True)
            return locked(self._ours / "lock")
        except BlockingIOError:
            raise AdaptersFolderNotUsable(
                self.root, "another server uses it. Give each server a folder of its own."
            ) from None
        except OSError as error:
            raise AdaptersFolderNotUsable(
                self.root,
                f"cannot be written ({error.strerror}), and what is served is recorded there.",
            ) from None

    def _read(self) -> State:
        if not self._record.exists():
            return State()
        try:
            return State.model_validate_json(self._record.read_text(encoding="utf-8"))
        except (OSError, ValidationError) as error:
            raise AdaptersFolderNotUsable(
                self.root,
                f"{self._record} is damaged ({type(error).__name__}). Remove it to begin without "
                "adapters; their runs are not touched.",
            ) from None
