"""A batch's answers and errors, appended line by line; what is there after a crash is kept.

A result is known by its id, which ends in the number of its line. A server that is killed in the
middle of writing leaves half a line at the end; it is cut off, and that request runs again.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import IO, Any

from serve.disk import sync, sync_folder
from serve.offline.records import Counts

OUTPUT, ERRORS = "output.jsonl", "errors.jsonl"


class Results:
    """The results of one batch."""

    def __init__(self, folder: Path) -> None:
        """Read what is in the batch's folder already. Blocks."""
        self.counts = Counts()
        self.done: set[int] = set()
        """Numbers of the lines that have a result."""
        self._pending: list[tuple[bool, int, bytes, dict[str, Any]]] = []
        self._writing: asyncio.Task[None] | None = None
        for name in (OUTPUT, ERRORS):
            self._recover(folder / name, succeeded=name == OUTPUT)
        self._output, self._errors = (folder / OUTPUT).open("ab"), (folder / ERRORS).open("ab")
        sync_folder(folder)

    async def add(self, number: int, result: dict[str, Any], *, succeeded: bool) -> None:
        """Write a result, and return when it is on the disk.

        It is written also when whoever waits for it is cancelled. Results that come at the same
        time are written together.
        """
        text = json.dumps(result, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        self._pending.append((succeeded, number, text, result))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        await asyncio.shield(self._writing)

    async def flush(self) -> None:
        """Wait until all is written that was added."""
        if self._writing is not None:
            await self._writing

    async def close(self) -> None:
        """Write all that was added, and end."""
        with self._output, self._errors:
            await self.flush()

    async def _write(self) -> None:
        while self._pending:
            now, self._pending = self._pending, []
            for file, of in ((self._output, True), (self._errors, False)):
                if text := b"".join(text for succeeded, _, text, _ in now if succeeded is of):
                    await asyncio.to_thread(_append, file, text)
            for succeeded, number, _, result in now:
                self._count(number, result, succeeded=succeeded)

    def _count(self, number: int, result: dict[str, Any], *, succeeded: bool) -> None:
        self.done.add(number)
        if succeeded:
            self.counts.completed += 1
            _add_usage(self.counts, result["response"]["body"])
        else:
            self.counts.failed += 1

    def _recover(self, path: Path, *, succeeded: bool) -> None:
        if not path.exists():
            return
        with path.open("r+b") as file:
            good = 0
            for text in file:
                try:
                    if not text.endswith(b"\n"):
                        break
                    result = json.loads(text)
                    number = int(result["id"].rpartition("_")[2])
                except (ValueError, TypeError, KeyError):
                    break
                good += len(text)
                self._count(number, result, succeeded=succeeded)
            file.truncate(good)


def result_id(batch_id: str, number: int) -> str:
    """The id of a line's result."""
    return f"batch_req_{batch_id.removeprefix('batch_')}_{number}"


def _append(file: IO[bytes], text: bytes) -> None:
    file.write(text)
    sync(file)


def _add_usage(counts: Counts, body: Any) -> None:
    usage = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(usage, dict):
        return
    prompt = usage.get("prompt_tokens", usage.get("input_tokens")) or 0
    counts.input_tokens += prompt
    counts.output_tokens += usage.get("completion_tokens", usage.get("output_tokens")) or 0
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    counts.cached_tokens += details.get("cached_tokens") or 0
