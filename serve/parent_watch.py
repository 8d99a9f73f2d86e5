"""Notice that the process which started this one is gone, even if it was killed outright."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

_SECONDS_BETWEEN_LOOKS = 0.5


def watch_parent(parent_pid: int, then: Callable[[], None]) -> None:
    """Call ``then`` once, from a thread, when ``parent_pid`` is this process's parent no more.

    Linux's PR_SET_PDEATHSIG would need no thread, but it fires when the parent's *thread*
    ends, and servers are started from short-lived threads.
    """

    def look() -> None:
        while os.getppid() == parent_pid:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        then()

    threading.Thread(target=look, name="parent-watch", daemon=True).start()
