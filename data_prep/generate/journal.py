"""Every call that was answered, on disk before its answer is used.

A journal is a file of JSON lines, of which only the last may be torn. Three kinds of lines::

    {"sent": KEY, ...}                  a call leaves for the teacher
    {"answered": KEY, ..., "text": ...} its answer, with the call itself
    {"failed": KEY}                     it was given up, and is made again in another run

A call that was sent and has no answer was under way when the process died; what it cost is unknown.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from data_prep.errors import DataError
from data_prep.generate.asking import Ask, Reply


@dataclass
class Spent:
    """What the calls of a journal took."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    by_purpose: Counter[str] = field(default_factory=Counter)
    """Calls for each purpose."""

    @property
    def tokens(self) -> int:
        """Of questions and answers."""
        return self.prompt_tokens + self.completion_tokens

    def add(self, purpose: str, reply_line: dict[str, Any]) -> None:
        """Count a call."""
        self.calls += 1
        self.prompt_tokens += reply_line["prompt_tokens"]
        self.completion_tokens += reply_line["completion_tokens"]
        self.by_purpose[purpose] += 1


class Journal:
    """The answers so far, and the place of those to come."""

    def __init__(self, path: Path) -> None:
        """Open a journal, or begin one; a torn last line is taken off.

        Raises:
            DataError: another process writes to it, or a line inside it is not of a journal.
        """
        self.path = path
        self.spent = Spent()
        self._answers: dict[str, tuple[int, int]] = {}
        """Where each answer's line stands: only that much of it is in memory."""
        self._open: set[str] = set()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._lock()
            self._read()
        except BaseException:
            os.close(self._file)
            raise
        self._unflushed: list[asyncio.Future[None]] = []
        self._flusher: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._file)

    @property
    def without_answer(self) -> int:
        """Calls that were sent and never answered: under way now, or when a process died."""
        return len(self._open)

    def find(self, key: str) -> Reply | None:
        """The answer to a call that was made before."""
        if key not in self._answers:
            return None
        start, length = self._answers[key]
        line = json.loads(os.pread(self._file, length, start))
        return Reply(
            line["text"], line["finish_reason"], line["prompt_tokens"], line["completion_tokens"]
        )

    def send(self, key: str, purpose: str) -> None:
        """Note that a call leaves. It survives the process, not yet the machine."""
        self._write({"sent": key, "purpose": purpose})
        self._open.add(key)

    def fail(self, key: str) -> None:
        """Note that a call that was sent got no answer, and will get none in this run."""
        self._write({"failed": key})
        self._open.discard(key)

    async def answer(self, key: str, ask: Ask, reply: Reply, seconds: float) -> None:
        """Keep an answer; returns once it is on the disk.

        Answers that come meanwhile share one flush.
        """
        line = {
            "answered": key,
            "purpose": ask.purpose,
            "messages": [turn.as_dict() for turn in ask.messages],
            "seed": ask.seed,
            "text": reply.text,
            "finish_reason": reply.finish_reason,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "seconds": round(seconds, 3),
        }
        start, length = self._write(line)
        self.spent.add(ask.purpose, line)  # whatever becomes of the answer, it was paid for
        done = asyncio.get_running_loop().create_future()
        self._unflushed.append(done)
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        await done
        self._open.discard(key)
        self._answers[key] = start, length

    async def _flush(self) -> None:
        while self._unflushed:
            waiting, self._unflushed = self._unflushed, []
            try:
                await asyncio.to_thread(os.fdatasync, self._file)
            except OSError as error:
                for each in waiting:
                    each.set_exception(error)
                continue
            for each in waiting:
                if not each.done():
                    each.set_result(None)

    def _write(self, line: dict[str, Any]) -> tuple[int, int]:
        """Append a line in one write; answers where it stands."""
        written = json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
        start = self._end
        done = os.pwrite(self._file, written, start)
        if done < len(written):  # the disk is full: no half a line stays
            os.ftruncate(self._file, start)
            os.fsync(self._file)
            raise OSError(28, os.strerror(28), str(self.path))
        self._end += len(written)
        return start, len(written)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(
                f"{self.path}: another process is generating into this folder. Wait for it, or "
                "name another folder."
            ) from None

    def _read(self) -> None:
        self._end = 0
        for number, line in enumerate(self._lines(), 1):
            try:
                said = json.loads(line)
                if "sent" in said:
                    self._open.add(said["sent"])
                elif "failed" in said:
                    self._open.discard(said["failed"])
                else:
                    self.spent.add(said["purpose"], said)
                    self._open.discard(said["answered"])
                    self._answers[said["answered"]] = self._end, len(line)
            except (ValueError, KeyError, TypeError):
                raise DataError(
                    f"{self.path}:{number}: not a line of a journal. It was changed by hand, or "
                    "damaged: take the line out (its call is made again), or name another folder."
                ) from None
            self._end += len(line)
        os.ftruncate(self._file, self._end)

    def _lines(self) -> Iterator[bytes]:
        """All whole lines; one without an end was being written when the process died."""
        with self.path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line
