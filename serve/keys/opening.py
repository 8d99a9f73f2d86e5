"""Opening the keys for a server, and closing them with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from serve.keys.database import NONE, Database, database_named
from serve.keys.known import KnownKeys
from serve.keys.limiter import Limiter
from serve.keys.store import KeyStore
from serve.keys.usage import Usage
from serve.listening import is_loopback
from serve.settings import ServeSettings

LOOPBACK = "127.0.0.1"


@dataclass
class Keys:
    """What the gateway asks about keys. As it stands here: a server that knows none."""

    known: KnownKeys | None = None
    """None without a database, as the two below."""

    limiter: Limiter | None = None
    usage: Usage | None = None

    always_required: bool = False
    """Refuse requests without a key even where none was made: the server can be reached from
    other machines."""

    _ever_required: bool = False

    @property
    def required(self) -> bool:
        """Whether requests need a key: from the first one made on, and never less again."""
        if not self._ever_required:
            made = self.known is not None and len(self.known) > 0
            self._ever_required = self.always_required or made
        return self._ever_required

    def host(self, asked: str) -> str:
        """The address to listen on: one that only this machine reaches while no key is needed."""
        return asked if self.required or is_loopback(asked) else LOOPBACK

    def said(self, asked_host: str) -> str:
        """Who may ask, for the message that the server is ready."""
        if self.known is not None and len(self.known):
            return f"keys: {len(self.known)} made; requests need one."
        if self.required:
            return (
                "keys: none made, and other machines reach this address: all requests are refused."
            )
        who = "keys: none made, so anyone on this machine may ask, and no other machine can."
        if is_loopback(asked_host):
            return f"{who} Make one: llmkit keys create NAME"
        return (
            f"{who} To listen on {asked_host}, make one (llmkit keys create NAME), then start "
            "the server again."
        )


@contextmanager
def open_keys(settings: ServeSettings) -> Iterator[Keys]:
    """The keys that a server with these settings knows, followed until the block ends.

    Raises:
        DatabaseNotUsable: the database cannot be opened.
    """
    name = database_named(settings.database)
    if name == NONE:
        yield Keys()
        return
    database = Database(name)
    known, limiter, usage = KnownKeys(KeyStore(database)), Limiter(database), Usage(database)
    known.watch()
    limiter.start()
    usage.start()
    try:
        yield Keys(known, limiter, usage)
    finally:
        known.stop()
        limiter.stop()
        usage.stop()
        database.close()
