"""A Chromium to look at pages with; the system's own, since Playwright's is a download."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NEEDS_CHROMIUM = pytest.mark.skipif(_CHROMIUM is None, reason="no chromium on this machine")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser, as long as the block lasts."""
    # Chromium's sandbox does not start for root, as in most containers.
    words = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as started:
        running = started.chromium.launch(executable_path=_CHROMIUM, args=words)
        yield running
        running.close()
