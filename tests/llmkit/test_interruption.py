"""SIGTERM ends a command as Ctrl-C does, with an exit code of its own."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from llmkit.interruption import TERMINATED, Terminated, heeding_sigterm


def stop_a_command(signals: list[int]) -> tuple[int, str]:
    """Start a command that waits, send signals, and answer its exit code and what it says."""
    code = (
        "import signal, time\nfrom llmkit import cli, recipe_check\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
        "def wait(*_):\n    print('waiting', flush=True)\n    time.sleep(60)\n"
        "recipe_check.check_recipe = wait\ncli.main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "recipe", "check", "x"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout
        assert child.stdout.readline() == "waiting\n"
        for number in signals:
            child.send_signal(number)
        _, err = child.communicate(timeout=30)
    return child.returncode, err


def test_sigterm_says_what_ctrl_c_says_and_ends_with_143() -> None:
    said = "stopped; the same command goes on where it was\n"
    assert stop_a_command([signal.SIGINT]) == (130, said)
    assert stop_a_command([signal.SIGTERM]) == (TERMINATED, said) == (143, said)


def test_what_tidies_up_after_ctrl_c_does_after_sigterm() -> None:
    done = []
    before = signal.getsignal(signal.SIGTERM)
    with heeding_sigterm() as stop:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)
        except KeyboardInterrupt as error:
            done.append(type(error))
    assert done == [Terminated]
    assert stop.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_forked_process_ends_by_sigterm_in_silence() -> None:
    ready, tell = os.pipe()
    with heeding_sigterm() as stop:
        child = os.fork()
        if not child:
            try:
                # Python forgets a signal that comes while it is still forking.
                os.write(tell, b"x")
                for _ in range(3000):
                    time.sleep(0.01)
            finally:
                os._exit(9)  # what tidies up is the parent's
        os.read(ready, 1)
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
    assert stop.exit_code == 130
    os.close(ready)
    os.close(tell)


@pytest.mark.parametrize("way", ["ignored", "another thread"])
def test_where_sigterm_is_not_heard_it_is_left_as_it_is(way: str) -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def look() -> None:
        with heeding_sigterm():
            seen.append(signal.getsignal(signal.SIGTERM))

    if way == "ignored":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            look()
        finally:
            signal.signal(signal.SIGTERM, before)
        assert seen == [signal.SIG_IGN]
        return
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before]
