"""What can be wrong with data, as errors a person can act on."""


class DataError(Exception):
    """The data, or what was asked of it, is wrong. The message names what, where and the remedy."""

    exit_code = 2


class RowError(Exception):
    """One row cannot be used.

    Args:
        reason: short and without figures, so that the ledger can count rows by it.
        detail: what exactly was found; shown beside the row's place.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
