"""Keep native libraries from writing to the terminal while the interpreter is torn down."""

from __future__ import annotations

import atexit
import os


def silence_teardown() -> None:
    """Send file descriptor 2 to nowhere once Python's own exit handlers begin.

    Triton's bindings (nanobind) print a page of "leaked" objects from their destructors at
    every exit. By then everything of ours has been written.
    """

    def redirect() -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)

    atexit.register(redirect)
