"""The database of keys: SQLite in a file for one machine, PostgreSQL for several replicas."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, insert, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, SQLAlchemyError

from serve.keys.errors import DatabaseNotReached, DatabaseNotUsable, NoDatabase
from serve.keys.tables import VERSION, metadata, schema

VARIABLE = "LLMKIT_DATABASE"
"""Names the database where no setting does: a URL with a password is not for command lines."""

NONE = "none"
"""In place of a database: the server knows no keys."""

_SECONDS_FOR_A_LOCK = 10
_SCHEMA_LOCK = 0x6C6C6D6B6974  # "llmkit", for PostgreSQL's advisory locks


def database_named(setting: str | None) -> str:
    """The database to use: the setting, `VARIABLE`, or a file among the user's data."""
    return setting or os.environ.get(VARIABLE) or str(_default_file())


def _default_file() -> Path:
    data = os.environ.get("XDG_DATA_HOME")
    folder = Path(data) if data else Path.home() / ".local" / "share"
    return folder / "llmkit" / "llmkit.db"


class Database:
    """An open database whose tables are there."""

    def __init__(self, name: str) -> None:
        """Open a database, and make its tables if it has none.

        Args:
            name: a file, or a URL of SQLite or PostgreSQL.

        Raises:
            NoDatabase: the name is ``none``.
            DatabaseNotReached: nothing answers there, or it is locked.
            DatabaseNotUsable: it is no database, or its tables are of another version of llmkit.
        """
        if name == NONE:
            raise NoDatabase
        url = _url(name)
        self.where = url.render_as_string(hide_password=True)
        """The URL without its password, for messages."""
        self.postgresql = url.get_backend_name() == "postgresql"
        """Whether other machines may share it."""
        try:
            self.engine = _engine(url)
            with self.writing() as connection:
                self._make_tables(connection)
        except SQLAlchemyError as error:
            raise self.not_usable(error) from None
        except OSError as error:
            raise DatabaseNotUsable(self.where, error.strerror or str(error)) from None

    def not_usable(self, error: SQLAlchemyError) -> DatabaseNotUsable:
        """What went wrong, for people: the driver's own words, on one line, without the SQL."""
        told = error.orig if isinstance(error, DBAPIError) else error
        kind = DatabaseNotReached if isinstance(error, OperationalError) else DatabaseNotUsable
        return kind(self.where, " ".join(str(told).split()).rstrip("."))

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that may write; on SQLite it waits here for other writers."""
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads and waits for no writer."""
        with self.engine.connect().execution_options(reads_only=True) as connection:
            yield connection

    def close(self) -> None:
        """Close its connections."""
        self.engine.dispose()

    def _make_tables(self, connection: Connection) -> None:
        if self.postgresql:
            # Two replicas that start together must not both find the tables missing.
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")
        metadata.create_all(connection)
        found = connection.execute(select(schema.c.version)).scalar()
        if found is None:
            connection.execute(insert(schema).values(id=1, version=VERSION, key_changes=0))
        elif found != VERSION:
            raise DatabaseNotUsable(
                self.where, f"its tables are of version {found}, this llmkit's of {VERSION}"
            )


def _url(name: str) -> URL:
    if "://" not in name:
        return URL.create("sqlite", database=str(Path(name).expanduser().absolute()))
    try:
        url = make_url(name)
    except (ArgumentError, ValueError):
        # The name may hold a password, so it is not repeated.
        raise DatabaseNotUsable("(not shown)", "it is not a URL") from None
    backend = url.get_backend_name()
    if backend in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and url.database not in (None, "", ":memory:"):
        return url
    raise DatabaseNotUsable(
        url.render_as_string(hide_password=True), "it is neither PostgreSQL nor a file of SQLite"
    )


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "postgresql":
        # A server that no longer answers is given up in seconds, not in TCP's quarter of an hour.
        patience = {"connect_timeout": 5, "tcp_user_timeout": 5000} | dict(url.query)
        engine = create_engine(url, pool_pre_ping=True, connect_args=patience)
        event.listen(engine, "connect", _limit_waiting)
        return engine
    file = Path(str(url.database))
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.touch(mode=0o600)
    engine = create_engine(url, connect_args={"timeout": _SECONDS_FOR_A_LOCK})
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _limit_waiting(connection: Any, _record: object) -> None:
    """A replica that stands still inside a transaction must not hold the others up for long."""
    connection.execute(
        f"SET idle_in_transaction_session_timeout = '{_SECONDS_FOR_A_LOCK}s'; "
        f"SET statement_timeout = '{2 * _SECONDS_FOR_A_LOCK}s'"
    )
    connection.commit()


def _set_up_sqlite(connection: Any, _record: object) -> None:
    # Transactions are begun by `_begin_sqlite`, not by the driver's guess at a statement's kind.
    connection.isolation_level = None
    # Readers beside one writer, and no fsync a commit: what a crash of the machine can take is
    # the last moments' counts; a crash of the process takes nothing.
    _write_ahead(connection)
    connection.execute("PRAGMA synchronous = NORMAL")


def _write_ahead(connection: Any) -> None:
    """Switch the file to WAL, when others that start at the same time let it.

    SQLite refuses at once, without its own wait, where two that read both ask to be alone with
    the file.
    """
    until = time.monotonic() + _SECONDS_FOR_A_LOCK
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > until:
                raise
        time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    reads_only = connection.get_execution_options().get("reads_only", False)
    # A transaction that reads first and then writes would fail where another wrote in between.
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")
