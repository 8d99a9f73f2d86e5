"""Label values from outside, kept from growing without end."""

from __future__ import annotations

OTHER = "other"
"""Stands for every value past the limit."""
NONE = "none"
"""Stands for no value: a request without a key, or one that names no model."""


class BoundedLabel:
    """The first ``limit`` different values of a label; any later one is `OTHER`.

    Each value is a time series in Prometheus' memory, and in this process'. Keys are made, and
    adapters' versions loaded, for as long as a server runs.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: set[str] = set()

    def of(self, value: str | None) -> str:
        """The value to use as a label."""
        if value is None:
            return NONE
        if value not in self._values:
            if len(self._values) >= self._limit:
                return OTHER
            self._values.add(value)
        return value
