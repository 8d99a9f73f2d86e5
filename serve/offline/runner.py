"""All batches of a server: made, run while it serves, gone on with after a restart."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.types import ASGIApp

from serve.gateway.authenticate import may_call
from serve.keys.key import Key
from serve.keys.known import Unfit
from serve.keys.opening import Keys
from serve.offline.attempts import KeyHoldsNoMore
from serve.offline.batches import Batches
from serve.offline.files import Files
from serve.offline.folder import Folder
from serve.offline.gate import Gate, Others
from serve.offline.lines import Rules
from serve.offline.records import BatchRecord
from serve.offline.run import SECONDS_KEPT, BatchRun, Tools
from serve.offline.turns import Turns
from serve.requests.bounds import Bounds
from serve.requests.refusal import RequestRefused
from serve.settings import ServeSettings

_log = logging.getLogger(__name__)

_SECONDS_BETWEEN_CLEANINGS = 600.0
_AT_ONCE, _OF_KEY = 16, 2
"""Batches that run at a time, and of one key."""
_ENDED_KEPT = 1000
"""Batches of a key that have ended; older ones are forgotten."""


class Store:
    """What the disk holds, opened for one server."""

    def __init__(self, path: Path, bytes_per_key: int) -> None:
        """Take the folder, and read it.

        Raises:
            BatchesFolderNotUsable: it cannot be written, or another server has it.
        """
        self.folder = Folder(path)
        self.files = Files(self.folder, bytes_per_key)
        self.batches = Batches(self.folder)

    def close(self) -> None:
        """Let another server have the folder."""
        self.folder.close()


@dataclass(frozen=True)
class Serving:
    """The server around batches, as they need to know it."""

    keys: Keys
    bounds: Bounds
    settings: ServeSettings
    others: Others

    def key(self, owner: str | None, endpoint: str) -> Key | None:
        """The key of a batch as it is now; None for one made when the server was open.

        Raises:
            KeyHoldsNoMore: it was revoked, has expired, or may not call this.
        """
        if owner is None:
            return None
        known = self.keys.known
        key = known.get(owner) if known is not None else Unfit.UNKNOWN
        if isinstance(key, Unfit):
            raise KeyHoldsNoMore(f"the API key {owner} that made this batch is {key.value}.")
        if not may_call(key, endpoint):
            raise KeyHoldsNoMore(f"the API key {owner} may not call {endpoint}.")
        return key

    def rules(self, endpoint: str, key: Key | None) -> Rules:
        """What the lines of a batch must keep to."""
        settings = self.settings
        return Rules(
            endpoint,
            tuple(self.bounds.models()),
            key,
            settings.max_batch_lines,
            settings.max_body_bytes,
        )

    @property
    def lines_at_once(self) -> int:
        """Never more than half of the engine's places, so that there is one for who comes."""
        settings = self.settings
        places = settings.max_running or self.bounds.max_running
        return max(1, min(settings.batch_concurrency, places // 2))


class Runner:
    """Runs batches, each in a task."""

    def __init__(self, store: Store, serving: Serving, app: ASGIApp) -> None:
        """Run batches on ``app``, the gateway's layers from the body's check on."""
        self._store = store
        self._serving = serving
        places = serving.lines_at_once
        self._tools = Tools(
            app=app,
            around=serving,
            batches=store.batches,
            files=store.files,
            gate=Gate(places, serving.others),
            lines_at_once=places,
            turns=Turns(_AT_ONCE, _OF_KEY),
        )
        self._runs: dict[str, tuple[BatchRun, asyncio.Task[None]]] = {}
        self._stopped = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Go on with every batch that has not ended; stop them all when the block ends.

        What ends the block by an exception, such as the engine's death, counts as a crash.
        """
        for record in self._store.batches.all():
            if not record.ended:
                self._start(record)
        cleaning = asyncio.create_task(self._clean_for_ever())
        try:
            yield
        except BaseException:
            await self._stop(cleaning)
            raise
        for record in await self._stop(cleaning):
            record.crashes = 0
            try:
                await self._store.batches.save(record)
            except OSError:  # the others' requests are to be finished all the same
                _log.exception("batch %s could not be saved", record.id)

    async def submit(self, record: BatchRecord) -> None:
        """Take a new batch on."""
        batches, most = self._store.batches, self._serving.settings.max_batches
        mine = [of for of in batches.all() if of.owner == record.owner]
        if sum(not of.ended for of in mine) >= most:
            raise RequestRefused(
                f"{most} batches of this key have not ended (max_batches). Wait for one, or cancel "
                "one.",
                code="too_many_batches",
                status=429,
            )
        await batches.add(record)
        self._start(record)
        for old in [of for of in mine if of.ended][:-_ENDED_KEPT]:
            await batches.forget(old)

    async def cancel(self, record: BatchRecord) -> None:
        """End a batch soon."""
        found = self._runs.get(record.id)
        if found is None or record.outcome is not None or record.ended:
            raise RequestRefused(
                f"the batch is {record.status} and can't be cancelled any more.",
                code="batch_not_cancellable",
                status=409,
            )
        await found[0].cancel()

    def _start(self, record: BatchRecord) -> None:
        if self._stopped:
            return  # it runs after the restart
        run = BatchRun(record, self._tools)
        task = asyncio.create_task(run.run())
        self._runs[record.id] = run, task
        task.add_done_callback(lambda _: self._runs.pop(record.id, None))

    async def _stop(self, cleaning: asyncio.Task[None]) -> list[BatchRecord]:
        """Stop everything; the batches that were stopped."""
        self._stopped = True
        stopped = list(self._runs)
        tasks = [cleaning, *(task for _, task in self._runs.values())]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        found = [self._store.batches.get(batch_id) for batch_id in stopped]
        return [record for record in found if record is not None and not record.ended]

    async def _clean_for_ever(self) -> None:
        while True:
            try:
                await self.clean(time.time())
            except OSError:
                _log.exception("what has expired could not be removed")
            await asyncio.sleep(_SECONDS_BETWEEN_CLEANINGS)

    async def clean(self, now: float) -> None:
        """Remove files that have expired, and batches that ended as long ago as files are kept."""
        store = self._store
        for file in store.files.all():
            if file.expires is not None and file.expires <= now and not store.batches.uses(file.id):
                await store.files.delete(file)
        for batch in store.batches.all():
            if batch.ended and max(batch.times.values()) + SECONDS_KEPT <= now:
                await store.batches.forget(batch)
