"""What the server's own log says of a request that failed: where, and never with what."""

from __future__ import annotations

import logging
import traceback

_LOG = logging.getLogger(__name__)


def report_failure(request_id: str, error: BaseException) -> None:
    """Log where an error was raised, without its message: that may quote a prompt or a key.

    Args:
        request_id: what the client was told, for finding this again.
        error: what was raised; what led to it is told too.
    """
    told: list[str] = []
    seen: BaseException | None = error
    while seen is not None and len(told) < 5:
        frames = "".join(traceback.format_tb(seen.__traceback__))
        told.append(f"{type(seen).__module__}.{type(seen).__qualname__}\n{frames}")
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    _LOG.error("request %s failed: %s", request_id, "raised while handling ".join(told).rstrip())
