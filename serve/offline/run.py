"""One batch, from the check of its file to the files that it makes.

    validating ──► in_progress ──► finalizing ──► completed
        │              │  │             └────────► expired     (the window is over)
        │              │  └──► cancelling ───────► cancelled
        └──► failed    └─────────────────────────► failed      (its key holds no more)

Every arrow is on the disk before the next thing happens, so a batch goes on from wherever a server
was killed. Only when the outcome is certain and written are the files put in place.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from starlette.types import ASGIApp

from serve.keys.key import Key
from serve.offline.attempts import Attempts, KeyHoldsNoMore, not_run, result_of
from serve.offline.batches import Batches
from serve.offline.files import Files
from serve.offline.gate import Gate
from serve.offline.lines import Line, Rules, check_file, read_lines
from serve.offline.records import BatchRecord, LineProblem, Outcome
from serve.offline.results import ERRORS, OUTPUT, Results, result_id
from serve.offline.turns import Turns

_log = logging.getLogger(__name__)

SECONDS_KEPT = 30 * 24 * 3600
"""For which files of batches are kept, as OpenAI does."""
_SECONDS_BETWEEN_TRIES = 30.0
"""Until going on after the disk failed: it may be full, and someone frees it."""
_MOST_CRASHES = 3
_AT_ONCE = 500
"""Lines that are marked as expired together."""


class Around(Protocol):
    """What the server around batches tells about itself at any moment."""

    def key(self, owner: str | None, endpoint: str) -> Key | None:
        """The key to charge; raises `KeyHoldsNoMore`."""

    def rules(self, endpoint: str, key: Key | None) -> Rules:
        """What lines must keep to."""


@dataclass(frozen=True)
class Tools:
    """What runs of batches share."""

    app: ASGIApp
    """The gateway's layers from the body's check on."""
    around: Around
    batches: Batches
    files: Files
    gate: Gate
    lines_at_once: int
    """Of one key."""
    turns: Turns
    """Bounds how many batches have lines in memory."""
    checking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    """Files are checked one after the other: each check keeps a thread busy."""


class _Abandoned(Exception):
    """The server crashed too often while the batch ran."""


class BatchRun:
    """Runs one batch, from wherever it is."""

    def __init__(self, record: BatchRecord, tools: Tools) -> None:
        self._record = record
        self._tools = tools
        self._cancel = asyncio.Event()
        self._changing = asyncio.Lock()
        self._broken = self._suspected = False

    async def cancel(self) -> None:
        """End it soon, with what is done by then."""
        now = time.time()

        def enter(record: BatchRecord) -> None:
            if record.status in ("validating", "in_progress"):
                record.enter("cancelling", now)

        await self._change(enter)
        self._cancel.set()

    async def run(self) -> None:
        """Run it to its end. Cancel the task to stop: another run goes on from there."""
        while True:
            try:
                await self._run()
                return
            except OSError:
                self._record.crashes = 0
                _log.exception("batch %s waits for the disk", self._record.id)
            except Exception:
                _log.exception("batch %s failed", self._record.id)
                self._broken = True
            await asyncio.sleep(_SECONDS_BETWEEN_TRIES)

    async def _run(self) -> None:
        record = self._record
        if self._broken and record.outcome is None:
            message = "the server failed; its log says why."
            record.errors = [LineProblem(code="internal_error", message=message)]
            await self._decide("failed")
        if record.outcome is None and record.status == "validating":
            await self._validate()
        if record.outcome is None:
            await self._decide(await self._run_lines())
        await self._finish()

    async def _validate(self) -> None:
        record, tools = self._record, self._tools
        path = tools.files.path(record.input_file_id)
        try:
            rules = tools.around.rules(record.endpoint, self._key())
            async with tools.checking:
                checked = await asyncio.to_thread(check_file, path, rules)
        except KeyHoldsNoMore as error:
            record.errors = [LineProblem(code="invalid_api_key", message=str(error))]
        except FileNotFoundError:
            problem = LineProblem(code="file_not_found", message="the input file is gone.")
            record.errors = [problem]
        else:
            record.total, record.errors = checked.total, checked.problems
        if record.errors:
            record.outcome = "failed"
        elif record.status == "validating":  # not cancelled meanwhile
            record.enter("in_progress", time.time())
        await tools.batches.save(record)

    async def _run_lines(self) -> Outcome:
        """Run the lines that have no result; how the batch ends."""
        record = self._record
        results = await asyncio.to_thread(Results, self._tools.batches.folder(record))
        record.counts = results.counts
        try:
            outcome = await self._outcome_of(results)
        except BaseException:
            try:
                await results.close()
            except OSError:  # not to be told in place of what ended it, such as the server's stop
                _log.exception("batch %s: its last results were not written", record.id)
            raise
        await results.close()
        return outcome

    async def _outcome_of(self, results: Results) -> Outcome:
        record = self._record
        if record.status == "cancelling" or self._cancel.is_set():
            return "cancelled"
        try:
            in_time = await self._until_over(asyncio.create_task(self._each_line(results)))
        except KeyHoldsNoMore as error:
            record.errors = [LineProblem(code="invalid_api_key", message=str(error))]
            return "failed"
        except _Abandoned as error:
            record.errors = [LineProblem(code="batch_abandoned", message=str(error))]
            return "failed"
        if in_time:
            return "completed"
        if self._cancel.is_set():
            return "cancelled"
        await self._expire(results)
        return "expired"

    async def _until_over(self, work: asyncio.Future[Any]) -> bool:
        """Wait for the work, for the end of the window, or to be cancelled; end all three."""
        cancelled: asyncio.Future[Any] = asyncio.ensure_future(self._cancel.wait())
        left = max(0.0, self._record.expires - time.time())
        try:
            await asyncio.wait([work, cancelled], timeout=left, return_when=asyncio.FIRST_COMPLETED)
            in_time = work.done()
        finally:
            cancelled.cancel()
            work.cancel()
            await asyncio.wait([work, cancelled])
        if in_time:
            work.result()
        return in_time

    async def _each_line(self, results: Results) -> None:
        """Run lines until all have a result; others have the turn while these are put off."""
        record, tools = self._record, self._tools
        attempts = Attempts(tools.app, record.endpoint, tools.gate, self._key)
        while True:
            async with self._turn():
                await self._run_turn(attempts, results)
            if not attempts.put_off:
                return
            await attempts.allowed()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """A turn, counted as a crash unless it ends in order or a line is done."""
        record, tools = self._record, self._tools
        if record.crashes >= _MOST_CRASHES:
            raise _Abandoned(
                f"the server crashed {_MOST_CRASHES} times before any further line was done."
            )
        if record.crashes:
            await tools.turns.suspects.acquire()
            self._suspected = True
        try:
            async with tools.turns.of(record.owner):
                record.crashes += 1
                await tools.batches.save(record)
                yield
                if record.crashes:
                    record.crashes -= 1
                    await tools.batches.save(record)
        finally:
            self._clear()

    def _clear(self) -> None:
        """Let the next batch run that may be what crashes the server."""
        if self._suspected:
            self._suspected = False
            self._tools.turns.suspects.release()

    async def _run_turn(self, attempts: Attempts, results: Results) -> None:
        places, lines = self._places(), self._lines(results)
        try:
            async with asyncio.TaskGroup() as group:
                while not attempts.put_off:
                    if (line := await asyncio.to_thread(next, lines, None)) is None:
                        break
                    await places.acquire()
                    task = group.create_task(self._one_line(line, attempts, results))
                    task.add_done_callback(lambda _: places.release())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    def _places(self) -> asyncio.Semaphore:
        if self._record.crashes > 1:
            # The others get done, and the one that crashes the server is alone.
            return asyncio.Semaphore(1)
        key, tools = self._key(), self._tools
        allowed = key.limits.concurrent_requests if key is not None else None
        # Half of what the key may ask at a time.
        most = min(tools.lines_at_once, max(1, (allowed or sys.maxsize) // 2))
        return tools.turns.lines_of(self._record.owner, most)

    async def _one_line(self, line: Line, attempts: Attempts, results: Results) -> None:
        record = self._record
        answer = await attempts.ask(line)
        if answer is None:
            return
        result = result_of(result_id(record.id, line.number), line, answer)
        await results.add(line.number, result, succeeded=answer.status == 200)
        if record.crashes:
            record.crashes = 0
            self._clear()
            await self._tools.batches.save(record)

    async def _expire(self, results: Results) -> None:
        """Say of every line that was not run that the time was over."""
        await results.flush()
        lines, more = self._lines(results), True
        while more:
            some = await asyncio.to_thread(list, islice(lines, _AT_ONCE))
            more = bool(some)
            of_batch = self._record.id
            await asyncio.gather(
                *(
                    results.add(
                        line.number,
                        not_run(result_id(of_batch, line.number), line),
                        succeeded=False,
                    )
                    for line in some
                )
            )

    async def _decide(self, outcome: Outcome) -> None:
        """Write down how it ends; from here on no line is run."""
        folder, now = self._tools.batches.folder(self._record), time.time()

        def decide(record: BatchRecord) -> None:
            record.has_output = _has_content(folder / OUTPUT)
            record.has_errors = _has_content(folder / ERRORS)
            record.outcome = outcome
            if outcome != "cancelled":
                record.enter("finalizing", now)

        await self._change(decide)

    async def _finish(self) -> None:
        record, tools = self._record, self._tools
        folder = tools.batches.folder(record)
        for name, file_id, there in (
            (OUTPUT, record.output_id, record.has_output),
            (ERRORS, record.error_id, record.has_errors),
        ):
            # Not there any more: it was moved by a server that was then killed.
            if there and (folder / name).exists():
                await tools.files.keep(
                    folder / name,
                    record.owner,
                    filename=f"{record.id}_{name}",
                    purpose="batch_output",
                    seconds=record.output_seconds or SECONDS_KEPT,
                    file_id=file_id,
                )
        outcome, now = record.outcome, time.time()
        assert outcome is not None
        await self._change(lambda record: record.enter(outcome, now))
        for name in (OUTPUT, ERRORS):
            (folder / name).unlink(missing_ok=True)

    async def _change(self, change: Callable[[BatchRecord], None]) -> None:
        """Change the record, first on the disk: nothing is done or told that is not there."""
        async with self._changing:
            changed = self._record.model_copy(deep=True)
            change(changed)
            await self._tools.batches.save(changed)
            change(self._record)

    def _key(self) -> Key | None:
        return self._tools.around.key(self._record.owner, self._record.endpoint)

    def _lines(self, results: Results) -> Iterator[Line]:
        return read_lines(self._tools.files.path(self._record.input_file_id), results.done)


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0
