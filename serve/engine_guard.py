"""What we add to the engine's own process. vLLM imports this there, as a worker extension.

vLLM 0.32 leaves the engine running when the server is killed with SIGKILL, and lets the
terminal's Ctrl-C reach it directly, which aborts the requests that the server means to
finish. The import itself does the work: vLLM never makes an instance.
"""

from __future__ import annotations

import os
import signal
import threading

from serve.parent_watch import watch_parent
from serve.quiet_exit import silence_teardown


class EngineGuard:
    """Empty: vLLM adds it to its worker's base classes."""


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _guard(server_pid: int) -> None:
    watch_parent(server_pid, _die)
    silence_teardown()
    # Only the main thread may set handlers; vLLM makes its worker there.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


# The import also happens in tests and tools, where there is no server to watch.
if (_server := os.environ.get("LLMKIT_SERVER_PID")) and int(_server) == os.getppid():
    _guard(int(_server))
elif _server and int(_server) != os.getpid():
    # Orphaned while still importing.
    _die()
