"""SIGTERM ends a command as Ctrl-C does: `kill`, systemd and `docker stop` send it."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

INTERRUPTED = 130
"""What typer answers for Ctrl-C, and shells for SIGINT."""
TERMINATED = 143
"""What shells answer for SIGTERM."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came; whatever tidies up after Ctrl-C does so now."""


@dataclass
class Stop:
    """How a command is stopped, if it is."""

    by_sigterm: bool = False

    @property
    def exit_code(self) -> int:
        """The exit code of a command that was stopped."""
        return TERMINATED if self.by_sigterm else INTERRUPTED


@contextmanager
def heeding_sigterm() -> Iterator[Stop]:
    """Raise `Terminated` in the main thread when SIGTERM comes, until the block ends.

    A process that ignores SIGTERM goes on ignoring it. Those that are forked off inside the block
    end as they would have without it.
    """
    stop, own = Stop(), os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        if os.getpid() != own:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        stop.by_sigterm = True
        raise Terminated

    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        yield stop
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
