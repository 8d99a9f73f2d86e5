"""Names of adapters: ``support`` is an alias, ``support@3`` the version that it means today."""

from __future__ import annotations

import re
from dataclasses import dataclass

from serve.adapters.refusal import AdapterRefused

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION = re.compile(rf"({_NAME.pattern})@([1-9][0-9]{{0,8}})")


@dataclass(frozen=True, order=True)
class Version:
    """One adapter under a number that never means another one."""

    name: str
    number: int

    def __str__(self) -> str:
        return f"{self.name}@{self.number}"


def read_version(text: str) -> Version | None:
    """``NAME@NUMBER`` as a version; None if the text is not of that form."""
    found = _VERSION.fullmatch(text)
    return Version(found[1], int(found[2])) if found else None


def check_name(name: str) -> None:
    """Refuse a name that could not stand in a URL, a metric's label and a log line.

    Raises:
        AdapterRefused: it is not 1 to 64 letters, digits, dots, dashes and underscores.
    """
    if _NAME.fullmatch(name) is None:
        raise AdapterRefused(
            400,
            "invalid_adapter_name",
            f"{name[:80]!r} is not a name for an adapter. Use 1 to 64 letters, digits, '.', '-' "
            "and '_', the first a letter or digit; the version is given apart.",
            param="name",
        )
