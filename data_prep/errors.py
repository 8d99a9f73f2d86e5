"""What can be wrong with data, as errors a person can act on."""

MOST_DETAIL = 300
"""Characters of a detail that are shown: it may quote data, and data may be long."""


class DataError(Exception):
    """The data, or what was asked of it, is wrong. The message names what, where and the remedy."""

    exit_code = 2


class RowsRefused(DataError):
    """All rows were made and judged: the same data and settings are refused again, every time."""


class CheckRefused(RowsRefused):
    """The data was understood, and a check that a person can set refuses to go on with it."""

    exit_code = 3


class RowError(Exception):
    """One row cannot be used.

    Args:
        reason: short and without figures, so that the ledger can count rows by it.
        detail: what exactly was found; shown beside the row's place.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail if len(detail) <= MOST_DETAIL else f"{detail[:MOST_DETAIL]}..."
        super().__init__(f"{reason}: {self.detail}" if detail else reason)
