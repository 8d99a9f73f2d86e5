"""A key as the gateway sees it: what its holder may do. Never the secret itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Limits:
    """How much a key may ask; None is without limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    tokens_per_month: int | None = None


@dataclass(frozen=True)
class Key:
    """A key that was found and holds."""

    id: str
    """Public and short; what logs, metrics and usage call it."""

    name: str
    """What the person who made it called it."""

    admin: bool = False
    """Whether it may load and unload adapters, read metrics and everyone's usage."""

    models: tuple[str, ...] | None = None
    """Models and adapters it may name, as patterns (``support@*``); None is all."""

    routes: tuple[str, ...] | None = None
    """Paths of the allow-list that it may call; None is all that need no admin."""

    expires: datetime | None = None
    """When it stops holding (UTC); None is never."""

    limits: Limits = field(default_factory=Limits)
    """How much it may ask."""

    def allows_model(self, name: str) -> bool:
        """Whether it may name this model or adapter."""
        return self.models is None or any(fnmatchcase(name, pattern) for pattern in self.models)
