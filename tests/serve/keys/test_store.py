"""Keys in SQLite and in PostgreSQL: made, found, revoked, and never readable again."""

import stat
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import text

from serve.keys.database import Database, database_named
from serve.keys.errors import DatabaseNotReached, DatabaseNotUsable, KeyNotFound, NoDatabase
from serve.keys.key import Key, Limits
from serve.keys.known import KnownKeys, Unfit
from serve.keys.store import KeyStore

LATER = datetime(2100, 1, 31, 12, 30, tzinfo=timezone(timedelta(hours=2)))


@pytest.fixture
def store(database: Database) -> KeyStore:
    return KeyStore(database)


def test_a_key_comes_back_as_it_was_made(store: KeyStore) -> None:
    limits = Limits(60, 10_000, 4, 1_000_000)
    made = store.create(
        "ann",
        admin=True,
        models=("base", "support@*"),
        routes=("/v1/*",),
        expires=LATER,
        limits=limits,
    )
    plain = store.create("bob")
    assert [stored.key for stored in store.all()] == [made.key, plain.key]
    assert store.all()[0].key.expires == LATER
    assert plain.key == Key(plain.key.id, "bob")


def test_the_secret_is_in_the_database_only_as_a_hash(database: Database, store: KeyStore) -> None:
    made = store.create("ann")
    secret = made.text.rpartition("-")[2]
    with database.reading() as connection:
        rows = str(connection.execute(text("SELECT * FROM llmkit_keys")).all())
    assert made.key.id in rows
    assert secret not in rows
    assert secret not in repr(made)


def test_a_key_is_found_by_its_whole_text_alone(store: KeyStore) -> None:
    made = store.create("ann")
    known = KnownKeys(store)
    assert known.find(made.text) == made.key
    head, _, secret = made.text.rpartition("-")
    wrong = [
        "",
        "sk-llmkit-",
        head,
        f"{head}-",
        made.text[:-1],
        f"{made.text}a",
        f"{head}-{'a' * len(secret)}",
        f"sk-llmkit-zzzzzzzz-{secret}",
        made.text.upper(),
        "ü" * 50,
    ]
    assert {known.find(text) for text in wrong} == {Unfit.UNKNOWN}


def test_an_expired_key_does_not_hold(store: KeyStore) -> None:
    made = store.create("ann", expires=datetime.now(UTC) - timedelta(seconds=1))
    assert KnownKeys(store).find(made.text) is Unfit.EXPIRED


def test_a_running_server_learns_of_new_and_revoked_keys(store: KeyStore) -> None:
    known = KnownKeys(store)
    made = store.create("ann")
    assert known.find(made.text) is Unfit.UNKNOWN
    known.refresh()
    assert known.find(made.text) == made.key
    store.revoke(made.key.id)
    known.refresh()
    assert known.find(made.text) is Unfit.REVOKED
    assert len(known) == 1


def test_a_watching_server_learns_of_keys_of_itself(store: KeyStore) -> None:
    known = KnownKeys(store)
    known.watch()
    try:
        made = store.create("ann")
        until(lambda: known.find(made.text) == made.key)
    finally:
        known.stop()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_watching_survives_a_restart_of_postgresql(
    new_postgresql: Callable[[], str], cut: Callable[[], None]
) -> None:
    database = Database(new_postgresql())
    store = KeyStore(database)
    known = KnownKeys(store)
    known.watch()
    try:
        cut()
        made = store.create("ann")
        until(lambda: known.find(made.text) == made.key)
    finally:
        known.stop()
        database.close()


def test_an_unknown_id_cannot_be_revoked(store: KeyStore) -> None:
    with pytest.raises(KeyNotFound, match="llmkit keys list"):
        store.revoke("nobody")


def test_revoking_again_keeps_the_first_moment(store: KeyStore) -> None:
    made = store.create("ann")
    assert store.revoke(made.key.id).revoked is None
    first = store.all()[0].revoked
    assert store.revoke(made.key.id).revoked == first is not None


def _failures_of_starting_together(name: str) -> list[BaseException]:
    failures: list[BaseException] = []
    together = threading.Barrier(8)

    def start() -> None:
        together.wait()
        try:
            Database(name).close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def test_servers_that_start_together_make_the_tables_once(database_name: str) -> None:
    assert _failures_of_starting_together(database_name) == []


def test_servers_that_start_together_wait_for_each_others_switch_to_wal(tmp_path: Path) -> None:
    # Without the wait, one of 20 files fails with a lock held by another start.
    for number in range(60):
        assert _failures_of_starting_together(str(tmp_path / f"{number}.db")) == []


def test_tables_of_another_version_are_refused(database: Database, database_name: str) -> None:
    with database.writing() as connection:
        connection.execute(text("UPDATE llmkit_schema SET version = 99"))
    with pytest.raises(DatabaseNotUsable, match="version 99"):
        Database(database_name)


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "new" / "keys.db"
    Database(str(file)).close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_only_a_database_that_may_come_back_is_worth_another_start(tmp_path: Path) -> None:
    with pytest.raises(DatabaseNotReached) as away:
        Database("postgresql://ann@localhost:1/keys")
    assert away.value.exit_code == 1
    (tmp_path / "notes.txt").write_text("no database" * 200)
    for wrong in ("mysql://localhost/keys", str(tmp_path / "notes.txt")):
        with pytest.raises(DatabaseNotUsable) as raised:
            Database(wrong)
        assert raised.value.exit_code == 2


def test_no_error_shows_the_password() -> None:
    url = "postgresql://ann:hunter2@localhost:1/keys"
    with pytest.raises(DatabaseNotUsable) as raised:
        Database(url)
    assert "hunter2" not in str(raised.value)
    assert "ann" in str(raised.value)
    with pytest.raises(DatabaseNotUsable) as raised:
        Database("postgresql://ann:hunter2@localhost:port/keys")
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("name", ["mysql://localhost/keys", "sqlite://", "sqlite:///:memory:"])
def test_another_kind_of_database_is_refused(name: str) -> None:
    with pytest.raises(DatabaseNotUsable, match="neither PostgreSQL nor a file"):
        Database(name)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no database at all, but long enough to be read as one" * 20)
    with pytest.raises(DatabaseNotUsable, match="not a database"):
        Database(str(file))
    with pytest.raises(DatabaseNotUsable, match=r"notes\.txt"):
        Database(str(file / "keys.db"))


def test_the_database_is_the_setting_or_the_variable_or_a_file_of_the_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LLMKIT_DATABASE", "from-variable.db")
    assert database_named("given.db") == "given.db"
    assert database_named(None) == "from-variable.db"
    monkeypatch.delenv("LLMKIT_DATABASE")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert database_named(None) == "/data/llmkit/llmkit.db"
    with pytest.raises(NoDatabase):
        Database("none")
