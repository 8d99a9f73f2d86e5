"""A database for each test: a file of SQLite, and a real PostgreSQL where Debian's is installed."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest

from serve.keys.database import Database


def _programs() -> Path | None:
    """The folder of PostgreSQL's server programs; Debian keeps them off the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    named = shutil.which("initdb")
    return found[-1].parent if found else Path(named).resolve().parent if named else None


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL server of this session's own, without a database's name."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed; scripts/system-packages.sh installs it")
    # It refuses to run as root, and a socket's path must be short.
    user = _other_user() if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    if user is not None:
        os.chown(folder, user, -1)

    def call(*command: str) -> None:
        done = subprocess.run(command, user=user, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    data, log = str(folder / "data"), str(folder / "log")
    call(str(programs / "initdb"), "-D", data, "-U", "llmkit", "-A", "trust", "--no-sync")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    pg_ctl = str(programs / "pg_ctl")
    call(pg_ctl, "start", "-w", "-D", data, "-l", log, "-o", options)
    try:
        yield f"postgresql://llmkit@/{{}}?host={folder}"
    finally:
        call(pg_ctl, "stop", "-w", "-m", "immediate", "-D", data)
        shutil.rmtree(folder)


def _other_user() -> int:
    try:
        return pwd.getpwnam("postgres").pw_uid
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")


_numbers = count()


@pytest.fixture
def new_postgresql(postgresql: str) -> Callable[[], str]:
    """Makes an empty database and gives its URL."""

    def new() -> str:
        name = f"test_{next(_numbers)}"
        with psycopg.connect(postgresql.format("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return postgresql.format(name)

    return new


@pytest.fixture(params=["sqlite", "postgresql"])
def database_name(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What the setting ``database`` says: a file, or a URL."""
    if request.param == "sqlite":
        return str(tmp_path / "keys.db")
    new: Callable[[], str] = request.getfixturevalue("new_postgresql")
    return new()


@pytest.fixture
def database(database_name: str) -> Iterator[Database]:
    """An open database without keys."""
    opened = Database(database_name)
    yield opened
    opened.close()


@pytest.fixture
def cut(postgresql: str) -> Callable[[], None]:
    """Ends every connection to PostgreSQL, as its restart does."""

    def end() -> None:
        with psycopg.connect(postgresql.format("postgres"), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid != pg_backend_pid()"
            )

    return end
