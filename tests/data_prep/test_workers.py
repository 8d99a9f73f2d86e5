"""Processes that answer in order, and what becomes of them when something dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.errors import DataError, RowError
from data_prep.workers import map_ordered

TESTS = str(Path(__file__).parent)


def double(number: int) -> int:
    return number * 2


def fail_at_three(number: int) -> int:
    if number == 3:
        raise RowError("malformed", "number three")
    return number


def die_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def hears_interrupts(number: int) -> bool:
    return signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def stay(folder: str) -> str:
    """Say who works here, and go on working until another file says to stop."""
    (Path(folder) / f"{os.getpid()}.worker").touch()
    time.sleep(0.2)
    return folder


@pytest.mark.parametrize("workers", [1, 2])
def test_answers_come_in_the_order_of_the_items(workers):
    assert list(map_ordered(double, iter(range(20)), workers)) == [2 * n for n in range(20)]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_worker_raises_arrives_whole_after_the_answers_before_it(workers):
    answers = map_ordered(fail_at_three, range(9), workers)
    assert [next(answers) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(RowError) as caught:
        next(answers)
    assert (caught.value.reason, caught.value.detail) == ("malformed", "number three")


def test_a_worker_that_is_killed_is_an_error_that_says_what_to_do():
    with pytest.raises(DataError, match=r"killed, .*memory.*fewer workers than 2"):
        list(map_ordered(die_at_three, range(9), 2))


def test_workers_do_not_hear_of_an_interrupt_and_this_process_does():
    """Each would write a traceback to the terminal."""
    assert not any(map_ordered(hears_interrupts, range(4), 2))
    assert hears_interrupts(0)


def script(folder: Path, start: str) -> subprocess.Popen[str]:
    """A process whose workers keep busy."""
    text = (
        f"import sys; sys.path.insert(0, {TESTS!r})\n"
        "from itertools import repeat\n"
        "from test_workers import stay\n"
        "from data_prep.workers import map_ordered\n"
        f"{start}    for _ in map_ordered(stay, repeat({str(folder)!r}), 2): pass\n"
    )
    (folder / "script.py").write_text(text, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, str(folder / "script.py")],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def running(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux who is running")
def test_workers_end_when_the_process_that_started_them_is_killed(tmp_path):
    process = script(tmp_path, "if __name__ == '__main__':\n")
    until = time.monotonic() + 60
    while len(workers := list(tmp_path.glob("*.worker"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.1)
    process.kill()
    process.wait()
    left = {int(path.stem) for path in workers}
    until = time.monotonic() + 10
    while left and time.monotonic() < until:
        time.sleep(0.1)
        left = {pid for pid in left if running(pid)}
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left
    process.communicate()


def test_a_script_that_does_not_protect_its_start_is_told_so(tmp_path):
    process = script(tmp_path, "if True:\n")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "belongs below `if __name__ == '__main__':`" in said.splitlines()[-1]
