"""Telling the server's log that the keys' database fails: once, and once that it does no more."""

from __future__ import annotations

import logging

from sqlalchemy.exc import DBAPIError

_LOG = logging.getLogger(__name__)


class Trouble:
    """What one thread met. Its statements hold no secrets, and are not logged all the same."""

    def __init__(self, what: str) -> None:
        """Tell about ``what``."""
        self._what = what
        self._lasts = False

    def told(self, error: Exception) -> None:
        """It failed."""
        if not self._lasts:
            cause = error.orig if isinstance(error, DBAPIError) else error
            reason = " ".join(str(cause).split())
            _LOG.error("%s cannot be read or written: %s", self._what, reason)
        self._lasts = True

    def over(self) -> None:
        """It did not."""
        if self._lasts:
            _LOG.warning("%s can be read and written again", self._what)
        self._lasts = False
