"""The access log's writer: never in the way, and right about what it wrote."""

import json
import os
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
    log = AccessLog(path)
    started = time.perf_counter()
    for n in range(30_000):
        log.write(0.0, lambda n=n: {"n": n, "long": "x" * 100})  # type: ignore[misc]
    assert time.perf_counter() - started < 5
    read = b""
    deadline = time.monotonic() + 20
    os.set_blocking(reader, True)
    while b"dropped_before" not in read and time.monotonic() < deadline:
        read += os.read(reader, 65536)
    assert b'"dropped_before":' in read
    os.close(reader)
    log.close()


def test_a_folder_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ServeError, match=r"missing/access.log: can't be written"):
        AccessLog(tmp_path / "missing" / "access.log")


def test_a_minus_is_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    log = AccessLog(Path("-"))
    log.write(0.0, lambda: {"n": 1})
    log.close()
    assert capfd.readouterr().out == '{"time":"1970-01-01T00:00:00.000Z","n":1}\n'
