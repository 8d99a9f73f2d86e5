"""The access log: one JSON object a line for every request, written by a thread of its own.

The event loop only puts a request's facts into a queue. A disk that is slow, or a reader of
standard output that has stopped, holds up no answer; lines past the queue's bound are dropped, as
are those that a full disk does not take, and the next line that is written says how many.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serve.errors import ServeError

STANDARD_OUTPUT = Path("/dev/stdout")
"""Written to as this process has it open: under systemd it is a socket, which open() refuses."""
_WAITING = 10_000
_AT_ONCE = 256
_SECONDS_TO_CLOSE = 2.0

Fields = Callable[[], Mapping[str, Any]]
"""Makes a line's fields, in the writer's thread; those that are None are left out."""


class AccessLog:
    """Writes lines to a file, or to standard output."""

    def __init__(self, path: Path, on_dropped: Callable[[int], None] = lambda _: None) -> None:
        """Open the file and start the writer.

        Args:
            path: the file, or `STANDARD_OUTPUT`.
            on_dropped: told how many lines are lost, by whichever thread loses them.

        Raises:
            ServeError: the file can't be written.
        """
        self._path = path
        # Each is written by one thread alone: the event loop's, the writer's.
        self._dropped = self._told = 0
        self._on_dropped = on_dropped
        self._in_a_line = False
        self._lines: queue.Queue[tuple[float, Fields] | None] = queue.Queue(_WAITING)
        try:
            self._file, self._identity = self._open()
        except OSError as error:
            raise ServeError(
                f"access_log {path}: can't be written: {error.strerror}. Give a file in a folder "
                f"that exists and that this user may write, or {STANDARD_OUTPUT}."
            ) from None
        self._writer = threading.Thread(target=self._write_all, name="access-log", daemon=True)
        self._writer.start()

    def write(self, when: float, fields: Fields) -> None:
        """Log one request, soon. Never blocks.

        Args:
            when: seconds since 1970.
            fields: makes the rest of the line.
        """
        try:
            self._lines.put_nowait((when, fields))
        except queue.Full:
            self._dropped += 1
            self._on_dropped(1)

    def close(self) -> None:
        """Write what waits, for two seconds at most."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=_SECONDS_TO_CLOSE)
            self._writer.join(_SECONDS_TO_CLOSE)

    def _write_all(self) -> None:
        closing = False
        while not closing:
            waiting = [self._lines.get()]
            with contextlib.suppress(queue.Empty):
                while len(waiting) < _AT_ONCE:
                    waiting.append(self._lines.get_nowait())
            closing = None in waiting
            self._put(b"".join(self._line(*line) for line in waiting if line is not None))

    def _line(self, when: float, fields: Fields) -> bytes:
        time = datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds")
        line = {"time": time.replace("+00:00", "Z"), **fields()}
        if dropped := self._dropped - self._told:
            line["dropped_before"] = dropped
            self._told += dropped
        known = {name: value for name, value in line.items() if value is not None}
        return json.dumps(known, separators=(",", ":")).encode() + b"\n"

    def _put(self, content: bytes) -> None:
        try:
            if self._moved():
                rotated = self._file
                self._file, self._identity = self._open()
                os.close(rotated)
                self._in_a_line = False
            if self._in_a_line:
                content = b"\n" + content
            while content:
                written = os.write(self._file, content)
                self._in_a_line = content[written - 1 : written] != b"\n"
                content = content[written:]
        except OSError:
            # A full disk is no reason to stop answering.
            lost = content.lstrip(b"\n").count(b"\n")
            self._told -= lost
            self._on_dropped(lost)

    def _open(self) -> tuple[int, tuple[int, int]]:
        if self._path == STANDARD_OUTPUT:
            return sys.stdout.fileno(), (0, 0)
        # Not readable by other users: it says who asked what and when.
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        status = os.fstat(file)
        return file, (status.st_dev, status.st_ino)

    def _moved(self) -> bool:
        """Whether logrotate, say, has put the file away."""
        if self._path == STANDARD_OUTPUT:
            return False
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return True
        return (status.st_dev, status.st_ino) != self._identity
