"""Where a server listens and what it says, by the keys that were made."""

from pathlib import Path

import pytest

from serve.keys.database import Database
from serve.keys.opening import Keys, open_keys
from serve.keys.store import KeyStore
from serve.listening import is_loopback
from serve.settings import ServeSettings


@pytest.fixture
def settings(tmp_path: Path) -> ServeSettings:
    return ServeSettings(database=str(tmp_path / "keys.db"))


def make_key(settings: ServeSettings) -> str:
    database = Database(str(settings.database))
    try:
        return KeyStore(database).create("ann").text
    finally:
        database.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gpu7.example"])
def test_without_keys_only_this_machine_is_listened_to(settings: ServeSettings, host: str) -> None:
    with open_keys(settings) as keys:
        assert keys.host(host) == "127.0.0.1"
        said = keys.said(host)
    assert f"To listen on {host}, make one" in said
    assert "no other machine can" in said


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_a_loopback_address_is_listened_to_as_asked(settings: ServeSettings, host: str) -> None:
    assert is_loopback(host)
    with open_keys(settings) as keys:
        assert keys.host(host) == host
        assert "keys: none made" in keys.said(host)


def test_with_a_key_every_address_may_be_listened_to(settings: ServeSettings) -> None:
    make_key(settings)
    with open_keys(settings) as keys:
        assert keys.host("0.0.0.0") == "0.0.0.0"
        assert keys.said("0.0.0.0") == "keys: 1 made; requests need one."


def test_without_a_database_only_this_machine_is_listened_to() -> None:
    with open_keys(ServeSettings(database="none")) as keys:
        assert keys == Keys()
        assert keys.host("0.0.0.0") == "127.0.0.1"
