"""The access log's writer: never in the way, and right about what it wrote."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serve.access_log import AccessLog
from serve.errors import ServeError


def numbers(path: Path) -> list[int]:
    return [json.loads(line)["n"] for line in path.read_text().splitlines()]


def test_every_line_is_written_in_order_and_the_file_is_not_public(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(path)
    for n in range(2000):
        log.write(0.0, lambda n=n: {"n": n, "nothing": None})  # type: ignore[misc]
    log.close()
    assert numbers(path) == list(range(2000))
    assert json.loads(path.read_text().splitlines()[0]) == {
        "time": "1970-01-01T00:00:00.000Z",
        "n": 0,
    }
    assert path.stat().st_mode & 0o007 == 0


def test_a_rotated_file_is_followed_by_a_new_one(tmp_path: Path) -> None:
    path, rotated = tmp_path / "access.log", tmp_path / "access.log.1"
    log = AccessLog(path)
    log.write(0.0, lambda: {"n": 1})
    while not path.stat().st_size:
        time.sleep(0.01)
    path.rename(rotated)
    log.write(0.0, lambda: {"n": 2})
    log.close()
    assert (numbers(rotated), numbers(path)) == ([1], [2])


def test_a_reader_that_stopped_holds_nothing_up_and_the_lines_lost_are_counted(
    tmp_path: Path,
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    dropped: list[int] = []
    log = AccessLog(path, dropped.append)
    started = time.perf_counter()
    for n in range(30_000):
        log.write(0.0, lambda n=n: {"n": n, "long": "x" * 100})  # type: ignore[misc]
    assert time.perf_counter() - started < 5
    read = b""
    deadline = time.monotonic() + 20
    os.set_blocking(reader, True)
    told = 0
    while told < len(dropped) and time.monotonic() < deadline:
        read += os.read(reader, 65536)
        told = sum(int(n) for n in re.findall(rb'"dropped_before":(\d+)}', read))
    assert told == len(dropped) > 0
    os.close(reader)
    log.close()


def test_lines_that_a_full_disk_does_not_take_are_counted_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "access.log"
    dropped: list[int] = []
    log = AccessLog(path, dropped.append)
    log.close()
    room = 12
    write = os.write

    def full(file: int, content: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(28, "No space left on device")
        written = write(file, content[:room])
        room -= written
        return written

    monkeypatch.setattr(os, "write", full)
    lines = [log._line(0.0, lambda n=n: {"n": n}) for n in range(3)]  # type: ignore[misc]
    log._put(b"".join(lines))
    log._put(lines[0])
    room = 1000
    log._put(log._line(0.0, lambda: {"n": 9}))
    half, whole = path.read_text().splitlines()
    assert half == '{"time":"197'
    assert json.loads(whole) == {"time": "1970-01-01T00:00:00.000Z", "n": 9, "dropped_before": 4}
    assert dropped == [3, 1]


def test_a_folder_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ServeError, match=r"missing/access.log: can't be written"):
        AccessLog(tmp_path / "missing" / "access.log")


def test_standard_output_may_be_a_socket_as_under_systemd() -> None:
    reading, writing = socket.socketpair()
    code = """
from pathlib import Path
from serve.access_log import AccessLog
log = AccessLog(Path("/dev/stdout"))
log.write(0.0, lambda: {"n": 1})
log.close()
"""
    subprocess.run([sys.executable, "-c", code], stdout=writing, check=True)
    assert reading.recv(100) == b'{"time":"1970-01-01T00:00:00.000Z","n":1}\n'
    reading.close()
    writing.close()
