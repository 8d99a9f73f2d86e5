"""The keys that a running server knows: in memory, and never far behind the database."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from serve.keys.key import Key
from serve.keys.secret import digest, matches, new_secret, parsed
from serve.keys.store import KeyStore, StoredKey
from serve.keys.trouble import Trouble

SECONDS_BETWEEN_LOOKS = 0.4
SECONDS_OF_TRUST = 60.0
"""How long keys are believed while the database cannot say whether they were revoked."""


class Unfit(enum.Enum):
    """Why what a client presented is not a key that holds."""

    UNKNOWN = "unknown"
    REVOKED = "revoked"
    EXPIRED = "expired"


class KnownKeys:
    """Every key by its id, looked up without a word to the database."""

    def __init__(self, store: KeyStore) -> None:
        """Read the keys; `watch` then follows the changes."""
        self._store = store
        self._trouble = Trouble("the keys")
        self._changes = store.changes()
        self._by_id = _by_id(store)
        self._read = time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        """Keys ever made, those revoked too."""
        return len(self._by_id)

    @property
    def outdated(self) -> bool:
        """Whether the database has been away for too long to believe any key."""
        return time.monotonic() - self._read > SECONDS_OF_TRUST

    def find(self, presented: str) -> Key | Unfit:
        """The key that a client presented, or why there is none.

        A revoked or expired key is told apart only from one who has its secret.
        """
        key_id, secret = parsed(presented)
        stored = self._by_id.get(key_id)
        # Compared in any case, so that the time tells nothing beyond the id, which is public.
        if not matches(secret, stored.digest if stored else _NOBODYS) or stored is None:
            return Unfit.UNKNOWN
        return _held(stored)

    def get(self, key_id: str) -> Key | Unfit:
        """A key by its id, for what its holder asked for earlier; or why it holds no more."""
        stored = self._by_id.get(key_id)
        return Unfit.UNKNOWN if stored is None else _held(stored)

    def refresh(self) -> None:
        """Read the keys again if any has changed. Blocks."""
        changes = self._store.changes()
        if changes != self._changes:
            # A change that comes after the first line is seen by the next look.
            self._by_id = _by_id(self._store)
            self._changes = changes
        self._read = time.monotonic()

    def watch(self) -> None:
        """Follow the database from a thread until `stop`."""
        self._thread = threading.Thread(target=self._follow, name="known-keys", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _follow(self) -> None:
        while not self._stop.wait(SECONDS_BETWEEN_LOOKS):
            try:
                self.refresh()
            except Exception as error:  # `outdated` says so once it has lasted
                self._trouble.told(error)
            else:
                self._trouble.over()


def _held(stored: StoredKey) -> Key | Unfit:
    if stored.revoked is not None:
        return Unfit.REVOKED
    if stored.key.expires is not None and stored.key.expires <= datetime.now(UTC):
        return Unfit.EXPIRED
    return stored.key


def _by_id(store: KeyStore) -> Mapping[str, StoredKey]:
    return {stored.key.id: stored for stored in store.all()}


_NOBODYS = digest(new_secret())
