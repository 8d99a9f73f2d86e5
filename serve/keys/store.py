"""Keys in the database: made, listed, revoked."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from serve.keys.database import Database
from serve.keys.errors import KeyNotFound
from serve.keys.key import Key, Limits
from serve.keys.secret import digest, new_id, new_secret, written
from serve.keys.tables import keys, schema, windows
from serve.keys.window_rows import new_row


@dataclass(frozen=True)
class StoredKey:
    """A key as the database has it."""

    key: Key
    digest: bytes = field(repr=False)
    """Of the secret; see `serve.keys.secret`."""
    created: datetime
    revoked: datetime | None = None


@dataclass(frozen=True)
class NewKey:
    """A key just made. ``text`` is the only copy of its secret."""

    key: Key
    text: str = field(repr=False)


class KeyStore:
    """Reads and changes keys. Blocks; a server calls it from a thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        name: str,
        *,
        admin: bool = False,
        models: tuple[str, ...] | None = None,
        routes: tuple[str, ...] | None = None,
        expires: datetime | None = None,
        limits: Limits | None = None,
    ) -> NewKey:
        """Make a key; the arguments are `Key`'s. Running servers know it within a second."""
        # SQLite keeps the digits of a moment and not its time zone.
        expires = _utc(expires)
        while True:
            key = Key(new_id(), name, admin, models, routes, expires, limits or Limits())
            secret = new_secret()
            try:
                self._insert(key, secret)
            except IntegrityError:
                continue  # the id is taken
            return NewKey(key, written(key.id, secret))

    def revoke(self, key_id: str) -> StoredKey:
        """Make a key hold no longer; running servers refuse it within a second.

        Raises:
            KeyNotFound: no key has this id.
        """
        with self._database.writing() as connection:
            row = connection.execute(select(keys).where(keys.c.id == key_id)).one_or_none()
            if row is None:
                raise KeyNotFound(key_id)
            if row.revoked is None:
                revoked = update(keys).where(keys.c.id == key_id)
                connection.execute(revoked.values(revoked=_now()))
                connection.execute(_ONE_MORE_CHANGE)
        return _stored(row)

    def all(self) -> list[StoredKey]:
        """Every key, the oldest first, those revoked or expired too."""
        with self._database.reading() as connection:
            rows = connection.execute(select(keys).order_by(keys.c.created, keys.c.id))
            return [_stored(row) for row in rows]

    def changes(self) -> int:
        """A number that goes up with every key made or revoked."""
        with self._database.reading() as connection:
            return int(connection.execute(select(schema.c.key_changes)).scalar_one())

    def _insert(self, key: Key, secret: str) -> None:
        row = {
            "id": key.id,
            "digest": digest(secret),
            "name": key.name,
            "admin": key.admin,
            "models": key.models,
            "routes": key.routes,
            "expires": key.expires,
            "created": _now(),
            **asdict(key.limits),
        }
        with self._database.writing() as connection:
            connection.execute(insert(keys).values(row))
            connection.execute(insert(windows).values(new_row(key.id)))
            connection.execute(_ONE_MORE_CHANGE)


_ONE_MORE_CHANGE = update(schema).values(key_changes=schema.c.key_changes + 1)


def _stored(row: Row[Any]) -> StoredKey:
    limits = Limits(
        row.requests_per_minute,
        row.tokens_per_minute,
        row.concurrent_requests,
        row.tokens_per_month,
    )
    models, routes = (value and tuple(value) for value in (row.models, row.routes))
    key = Key(row.id, row.name, row.admin, models, routes, _utc(row.expires), limits)
    return StoredKey(key, row.digest, _in_utc(row.created), _utc(row.revoked))


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else _in_utc(moment)


def _in_utc(moment: datetime) -> datetime:
    """SQLite gives back moments without the time zone that they were stored with."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _now() -> datetime:
    return datetime.now(UTC)
