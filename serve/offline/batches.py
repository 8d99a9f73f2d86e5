"""Batches on the disk: made, changed, listed, forgotten."""

from __future__ import annotations

import asyncio
import logging
import shutil
import uuid
from pathlib import Path

from pydantic import ValidationError

from serve.disk import sync_folder, write_beside
from serve.offline.folder import Folder
from serve.offline.records import BatchRecord

_log = logging.getLogger(__name__)
_RECORD = "batch.json"


class Batches:
    """The batches of one folder. Records are in memory too."""

    def __init__(self, folder: Folder) -> None:
        """Read the records. Blocks."""
        self._folder = folder.batches
        records = (_read(path) for path in self._folder.glob(f"*/{_RECORD}"))
        found = [record for record in records if record is not None]
        found.sort(key=lambda record: (record.created, record.id))
        self._records = {record.id: record for record in found}
        self._saving = asyncio.Lock()

    def all(self) -> list[BatchRecord]:
        """Every batch, the oldest first."""
        return list(self._records.values())

    def get(self, batch_id: str) -> BatchRecord | None:
        """A batch by its id."""
        return self._records.get(batch_id)

    def folder(self, record: BatchRecord) -> Path:
        """Where a batch's results are while it runs."""
        return self._folder / record.id

    def uses(self, file_id: str) -> bool:
        """Whether a batch that has not ended reads this file."""
        return any(of.input_file_id == file_id and not of.ended for of in self._records.values())

    async def add(self, record: BatchRecord) -> None:
        """Keep a new batch."""
        self._records[record.id] = record  # first: it counts, and its file is in use, from now on
        try:
            await asyncio.to_thread(self._make, record)
        except BaseException:
            del self._records[record.id]
            raise

    async def save(self, record: BatchRecord) -> None:
        """Put a batch as it is now onto the disk."""
        await asyncio.shield(asyncio.create_task(self._save(record)))

    async def forget(self, record: BatchRecord) -> None:
        """Remove a batch."""
        self._records.pop(record.id, None)
        await asyncio.to_thread(shutil.rmtree, self.folder(record), ignore_errors=True)

    async def _save(self, record: BatchRecord) -> None:
        """Goes on where who saves is cancelled: a thread that writes can't be stopped."""
        async with self._saving:  # of two writings of one record, the later must win
            content = record.model_dump_json().encode()
            await asyncio.to_thread(write_beside, self.folder(record) / _RECORD, content)

    def _make(self, record: BatchRecord) -> None:
        folder = self.folder(record)
        folder.mkdir(mode=0o700)
        write_beside(folder / _RECORD, record.model_dump_json().encode())
        sync_folder(self._folder)


def new_batch_id() -> str:
    """An id that cannot be guessed."""
    return f"batch_{uuid.uuid4().hex}"


def _read(path: Path) -> BatchRecord | None:
    try:
        return BatchRecord.model_validate_json(path.read_bytes())
    except ValidationError:
        _log.error("%s is damaged and was left out; what its batch did is beside it.", path)
        return None
