"""Files on the disk: uploaded, listed, read, deleted, expired."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from serve.disk import PARTIAL, sync, sync_folder, write_beside
from serve.offline.folder import Folder
from serve.offline.records import FileRecord, Purpose
from serve.requests.refusal import RequestRefused

_log = logging.getLogger(__name__)

_LEAST = 4096
"""Bytes that a file counts for at least: an empty one takes room too, on the disk and here."""


class Incoming:
    """A file while its content comes in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = 0
        self._file: IO[bytes] = path.open("wb")

    def write(self, content: bytes) -> None:
        """Add to it. Blocks."""
        self._file.write(content)
        self.bytes += len(content)

    def finish(self) -> None:
        """Put all of it onto the disk. Blocks."""
        sync(self._file)
        self._file.close()

    def discard(self) -> None:
        """Remove what is left of it: nothing, once it was kept."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class Files:
    """The files of one folder. Records are in memory, contents on the disk."""

    def __init__(self, folder: Folder, bytes_per_key: int) -> None:
        """Read the records. Blocks.

        Args:
            folder: where they are.
            bytes_per_key: most that one key's files may hold together.
        """
        self._folder = folder.files
        self._bytes_per_key = bytes_per_key
        self._incoming: Counter[str | None] = Counter()
        for left_over in self._folder.glob(f"*{PARTIAL}"):
            left_over.unlink()
        records = (_read(path) for path in self._folder.glob("*.json"))
        # A record without content was on its way in or out when the server was killed.
        found = [of for of in records if of is not None and self.path(of.id).is_file()]
        found.sort(key=lambda record: (record.created, record.id))
        self._records = {record.id: record for record in found}

    def all(self) -> list[FileRecord]:
        """Every file, the oldest first."""
        return list(self._records.values())

    def get(self, file_id: str) -> FileRecord | None:
        """A file by its id; None if it is not there or has expired."""
        record = self._records.get(file_id)
        if record is None or (record.expires is not None and record.expires <= time.time()):
            return None
        return record

    def path(self, file_id: str) -> Path:
        """Where a file's content is."""
        return self._folder / f"{file_id}.jsonl"

    def room(self, owner: str | None) -> int:
        """Bytes that a key may still add."""
        mine = (record for record in self._records.values() if record.owner == owner)
        used = sum(max(record.bytes, _LEAST) for record in mine)
        return max(0, self._bytes_per_key - used - self._incoming[owner])

    @contextmanager
    def incoming(self, owner: str | None, most: int) -> Iterator[Incoming]:
        """A file to be written, of at most ``most`` bytes; gone after the block unless kept.

        Raises:
            RequestRefused: the key has no room for so much.
        """
        most = max(most, _LEAST)
        if most > self.room(owner):
            raise RequestRefused(
                f"the files of this key may hold {self._bytes_per_key} bytes together "
                f"(max_files_bytes), and {self.room(owner)} are free. Delete some.",
                code="storage_limit_exceeded",
                status=413,
            )
        file = Incoming(self._folder / f"{uuid.uuid4().hex}{PARTIAL}")
        self._incoming[owner] += most
        try:
            yield file
        finally:
            self._incoming[owner] -= most
            file.discard()

    async def keep(
        self,
        content: Path,
        owner: str | None,
        *,
        filename: str,
        purpose: Purpose,
        seconds: int | None,
        file_id: str | None = None,
    ) -> FileRecord:
        """Make a file of content that is on the disk already; moves it.

        Args:
            content: complete and synchronised, on the same disk.
            owner: id of the key that it belongs to.
            filename: what its maker calls it.
            purpose: what it is for.
            seconds: after which it is removed; None is never.
            file_id: its id; a new one if not given.
        """
        now = time.time()
        record = FileRecord(
            id=file_id or new_file_id(),
            owner=owner,
            filename=filename,
            purpose=purpose,
            bytes=content.stat().st_size,
            created=now,
            expires=None if seconds is None else now + seconds,
        )
        await asyncio.to_thread(self._place, record, content)
        self._records[record.id] = record
        return record

    async def delete(self, record: FileRecord) -> None:
        """Remove a file. Who reads it at this moment reads on."""
        self._records.pop(record.id, None)
        await asyncio.to_thread(self._remove, record.id)

    def _place(self, record: FileRecord, content: Path) -> None:
        write_beside(self._record_path(record.id), record.model_dump_json().encode())
        content.replace(self.path(record.id))
        sync_folder(self._folder)

    def _remove(self, file_id: str) -> None:
        self.path(file_id).unlink(missing_ok=True)
        self._record_path(file_id).unlink(missing_ok=True)

    def _record_path(self, file_id: str) -> Path:
        return self._folder / f"{file_id}.json"


def new_file_id() -> str:
    """An id that cannot be guessed."""
    return f"file-{uuid.uuid4().hex}"


def _read(path: Path) -> FileRecord | None:
    try:
        return FileRecord.model_validate_json(path.read_bytes())
    except ValidationError:
        _log.error("%s is damaged and was left out; its content is beside it.", path)
        return None
