"""A server in a process of its own, for as long as a ``with`` block lasts."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from serve.errors import ServeError, ServerDidNotStart
from serve.keys.database import NONE, VARIABLE
from serve.listening import address_of, listen
from serve.model import ServedModel
from serve.settings import ServeSettings

_LINES_SHOWN = 20
_SECONDS_BETWEEN_LOOKS = 0.1


class ServerProcess:
    """``python -m serve`` on a free loopback port, ready when the block is entered.

    The server ends with the block, and with this process however that ends. Its own
    address is used, not the settings' ``host`` and ``port``. It asks for no key unless the
    settings name a database of keys.

    Example:
        with ServerProcess(open_model("runs/demo/merged"), Path("serve.log")) as server:
            client = openai.OpenAI(base_url=server.url, api_key="unused")
    """

    def __init__(
        self,
        model: ServedModel,
        log: Path,
        settings: ServeSettings | None = None,
        *,
        ready_seconds: float = 900.0,
    ) -> None:
        self.model = model
        """What is served; ``model.name`` is the name to ask for."""
        self.log = log
        """Where the server's output goes; replaced if it is there."""
        self.settings = settings or ServeSettings()
        self.ready_seconds = ready_seconds
        self.root_url = ""
        """``http://127.0.0.1:PORT``, known from `start` on."""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The base URL for OpenAI clients, ``http://127.0.0.1:PORT/v1``."""
        return f"{self.root_url}/v1"

    @property
    def pid(self) -> int:
        """The server's process id, which is also its process group's."""
        return self._started().pid

    def start(self) -> None:
        """Start the server and return without waiting for it."""
        # Listening here and handing the socket on leaves no moment for another process to
        # take the port.
        with listen("127.0.0.1", 0) as listening, self.log.open("wb") as log:
            self.root_url = address_of(listening)
            descriptor = listening.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "serve", *self._arguments(descriptor)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[descriptor],
                env=_environment(self.settings),
                # A group of its own: the terminal's Ctrl-C is for this process to handle.
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Wait for ``/ready``.

        Raises:
            ServerDidNotStart: the server ended, or was not ready within ``ready_seconds``;
                the message has the end of its log.
        """
        process = self._started()
        deadline = time.monotonic() + self.ready_seconds
        while not self.ready():
            if (code := process.poll()) is not None:
                raise ServerDidNotStart(
                    f"the server for {self.model.path} ended with exit code {code} before it "
                    f"was ready. Its log, {self.log}, ends with:\n{self._log_tail()}"
                )
            if time.monotonic() > deadline:
                raise ServerDidNotStart(
                    f"the server for {self.model.path} was not ready after "
                    f"{self.ready_seconds:.0f} s. Its log, {self.log}, ends with:\n"
                    f"{self._log_tail()}"
                )
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def ready(self) -> bool:
        """Whether ``/ready`` says so now."""
        try:
            with _DIRECTLY.open(f"{self.root_url}/ready", timeout=10) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def signal(self, number: signal.Signals) -> None:
        """Send the server a signal."""
        self._started().send_signal(number)

    def wait(self, seconds: float) -> int:
        """Wait for the server to end of itself; its exit code.

        Raises:
            subprocess.TimeoutExpired: it did not.
        """
        return self._started().wait(seconds)

    def stop(self) -> int:
        """End the server as SIGTERM does, by force if it does not end; its exit code."""
        process = self._started()
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self.settings.drain_seconds + 20)
        # Reaches a server that hangs, and an engine that a crashed server left behind. The
        # group's id cannot have been given away while a member lives; without one it fails.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return process.wait()

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _arguments(self, descriptor: int) -> list[str]:
        arguments = [str(self.model.path), "--name", self.model.name]
        for name, folder in self.model.adapters.items():
            arguments += ["--adapter", f"{name}={folder}"]
        given = self.settings.model_dump(mode="json", exclude_none=True, exclude={"database"})
        for name, value in given.items():
            arguments += ["--" + name.replace("_", "-"), str(value)]
        return [*arguments, "--listen-fd", str(descriptor), "--parent-pid", str(os.getpid())]

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServeError("the server was not started; use it in a with block, or call start().")
        return self._process

    def _log_tail(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-_LINES_SHOWN:])


_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks this machine without the proxy that may be set for others."""


def _environment(settings: ServeSettings) -> dict[str, str]:
    """This process's environment, with this checkout or installation importable."""
    root = str(Path(__file__).resolve().parent.parent)
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root,
        # Not among the arguments, which every user of the machine can read: it may hold a password.
        VARIABLE: settings.database or NONE,
    }
