"""The rows of `serve.keys.tables.windows`: locked, changed and written back in one transaction."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Float, bindparam, cast, func, literal, select, update
from sqlalchemy.exc import SQLAlchemyError

from serve.keys.database import Database
from serve.keys.tables import windows
from serve.keys.window import Window


@dataclass
class WindowRow:
    """One key's row; what is changed on it is written back."""

    state: str
    owner: str | None = None
    """The server process that counts in its memory, until `owned_until` at most."""
    owned_until: float = 0.0
    wanted: bool = False
    """Whether another process waits for the owner to write its counts here."""
    shared_until: float = 0.0
    """Until then every process counts here, in transactions, and none takes the row for itself."""


def new_row(key_id: str) -> dict[str, Any]:
    """The row of a key that was just made."""
    return {"key_id": key_id, **asdict(WindowRow(Window().as_json()))}


class WindowRows:
    """Access to the rows over one connection, for one thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None
        self._select = select(
            *(windows.c[name] for name in ("key_id", *_FIELDS)),
            # Replicas' clocks differ; PostgreSQL's is one for all of them.
            cast(func.extract("epoch", func.clock_timestamp()), Float)
            if database.postgresql
            else literal(None),
        ).order_by(windows.c.key_id)  # in one order, so that no two replicas wait for each other

    @contextmanager
    def locked(self, key_ids: Sequence[str]) -> Iterator[tuple[float, Mapping[str, WindowRow]]]:
        """Rows that no one else changes meanwhile, by key, and the database's time.

        Raises:
            SQLAlchemyError: the database does not answer; nothing was changed.
        """
        try:
            connection = self._connected()
            with connection.begin():
                found = connection.execute(
                    self._select.where(windows.c.key_id.in_(key_ids)).with_for_update()
                ).all()
                rows = {found_row[0]: WindowRow(*found_row[1:-1]) for found_row in found}
                before = {key_id: asdict(row) for key_id, row in rows.items()}
                yield (found and found[0][-1]) or time.time(), rows
                changed = [
                    {"of": key_id, **after}
                    for key_id, row in rows.items()
                    if (after := asdict(row)) != before[key_id]
                ]
                if changed:
                    connection.execute(_UPDATE, changed)
        except SQLAlchemyError:
            self.close()
            raise

    def close(self) -> None:
        """Give the connection up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._database.engine.connect()
            if self._database.postgresql:
                # A crash of the database may take the last moments' counts; waiting for its disk
                # at every request would cost more than those are worth.
                self._connection.exec_driver_sql("SET synchronous_commit TO off")
                self._connection.commit()
        return self._connection


_FIELDS = ("state", "owner", "owned_until", "wanted", "shared_until")
_UPDATE = (
    update(windows)
    .where(windows.c.key_id == bindparam("of"))
    .values({windows.c[name]: bindparam(name) for name in _FIELDS})
)
