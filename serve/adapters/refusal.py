"""Why something asked of the adapters was not done, as HTTP says it."""

from __future__ import annotations

from serve.errors import ServeError


class AdapterRefused(ServeError):
    """An adapter cannot be loaded, named or unloaded as asked; nothing was changed."""

    def __init__(self, status: int, code: str, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status."""
        self.code = code
        """The error's short name in the answer: a bounded set."""
        self.param = param
        """The field at fault, if one is."""


def unfit(message: str) -> AdapterRefused:
    """The refusal of an adapter that this server cannot serve rightly."""
    return AdapterRefused(400, "adapter_not_usable", message, param="path")
