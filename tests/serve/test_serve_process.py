"""Server processes that never get as far as an engine, and who dies with whom."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import serve
from serve.errors import ServerDidNotStart
from serve.model import ServedModel
from serve.process import ServerProcess

ROOT = Path(serve.__file__).parents[1]


def gone(pid: int, within: float = 20) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def python(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_a_server_that_ends_early_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    absent = ServedModel(tmp_path / "absent", "absent")
    with (
        pytest.raises(ServerDidNotStart, match="no such folder") as caught,
        ServerProcess(absent, tmp_path / "log"),
    ):
        pass
    assert "exit code 2" in str(caught.value)


def test_a_server_dies_when_its_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    parent = python(
        f"""
import time
from pathlib import Path
from serve.model import open_model
from serve.process import ServerProcess
server = ServerProcess(open_model({str(tmp_path)!r}), Path({str(tmp_path / "log")!r}))
server.start()
while True:
    try:
        import urllib.request
        urllib.request.urlopen(server.root_url + "/health", timeout=5)
        break
    except OSError:
        time.sleep(0.05)
print(server.pid, flush=True)
time.sleep(60)
"""
    )
    pid = int(first_line(parent))
    parent.kill()
    parent.wait()
    assert gone(pid, within=5), "long before it would end of itself, for want of a model"


def test_the_engine_dies_when_the_server_is_killed() -> None:
    engine = "import serve.engine_guard, time; print('up', flush=True); time.sleep(60)"
    server = python(
        f"""
import os, subprocess, sys, time
os.environ["LLMKIT_SERVER_PID"] = str(os.getpid())
engine = subprocess.Popen([sys.executable, "-c", {engine!r}], stdout=subprocess.PIPE)
engine.stdout.readline()
print(engine.pid, flush=True)
time.sleep(60)
"""
    )
    pid = int(first_line(server))
    os.kill(pid, signal.SIGINT)
    assert not gone(pid, within=0.5), "the terminal's Ctrl-C must not end the engine"
    server.kill()
    server.wait()
    assert gone(pid)


def test_a_wrong_option_is_told_without_a_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "serve", str(tmp_path), "--port", "70000"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "--port 70000" in done.stderr
    assert "Traceback" not in done.stderr
