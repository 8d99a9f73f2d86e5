"""``llmkit keys``: what a person types and reads."""

import json
import sqlite3
import sys
from pathlib import Path

import pytest

from llmkit import cli
from serve.keys.database import Database
from serve.keys.known import KnownKeys
from serve.keys.store import KeyStore
from serve.keys.usage import Usage


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):  # type: ignore[no-untyped-def]
    """Run ``llmkit keys`` in this process, on a database of the test's own."""
    monkeypatch.setenv("LLMKIT_DATABASE", str(tmp_path / "keys.db"))

    def call(*words: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["llmkit", "keys", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Result(ended.value.code, captured.out, captured.err)

    return call


def test_a_key_is_shown_once(keys, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    made = keys("create", "ann", "--model", "support@*", "--requests-per-minute", "60")
    assert made.code == 0
    text = made.out.strip()
    database = Database(str(tmp_path / "keys.db"))
    key = KnownKeys(KeyStore(database)).find(text)
    database.close()
    assert key.models == ("support@*",)  # type: ignore[union-attr]
    assert key.limits.requests_per_minute == 60  # type: ignore[union-attr]
    listed = keys("list")
    assert "ann" in listed.out
    assert "60 requests per minute" in listed.out
    secret = text.rpartition("-")[2]
    assert secret not in listed.out + listed.err + keys("list", "--json").out


def test_a_revoked_key_stays_in_the_list(keys) -> None:  # type: ignore[no-untyped-def]
    made = json.loads(keys("create", "ann", "--json").out)
    assert keys("revoke", made["id"]).code == 0
    assert json.loads(keys("list", "--json").out)[0]["state"] == "revoked"
    assert "already" in keys("revoke", made["key"]).out


@pytest.mark.parametrize("when", ["30x", "yesterday", "2001-01-01", "9" * 30 + "d"])
def test_a_wrong_or_past_end_is_refused(keys, when: str) -> None:  # type: ignore[no-untyped-def]
    made = keys("create", "ann", "--expires", when)
    assert made.code == 2
    assert "--expires" in made.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create", " "], "NAME"),
        (["create", "ann\x1b[2J"], "NAME"),
        (["create", "ann", "--requests-per-minute", "0"], "--requests-per-minute"),
        (["create", "ann", "--route", "/v1/models/base"], "/v1/models/{id}"),
        (["revoke", "nobody"], "llmkit keys list"),
        (["list", "--database", "none"], "LLMKIT_DATABASE"),
        (["usage", "--since", "yesterday"], "--since"),
        (["list", "--database", "postgresql://ann:hunter2@localhost:1/x"], "postgresql"),
    ],
)
def test_wrong_words_are_told_without_secrets(keys, words: list[str], said: str) -> None:  # type: ignore[no-untyped-def]
    result = keys(*words)
    assert result.code == (1 if said == "postgresql" else 2)
    assert said in result.err
    assert "hunter2" not in result.err


def test_an_empty_list_says_how_to_make_a_key(keys) -> None:  # type: ignore[no-untyped-def]
    listed = keys("list")
    assert (listed.code, listed.out) == (0, "")
    assert "llmkit keys create" in listed.err


def test_usage_is_shown_by_day_key_and_model(keys, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    made = json.loads(keys("create", "ann", "--json").out)
    database = Database(str(tmp_path / "keys.db"))
    usage = Usage(database)
    usage.add(made["id"], "support@1", 10, 5)
    usage.add(made["id"], "support@1", 10, 5)
    usage.write()
    database.close()
    shown = keys("usage", made["id"])
    assert shown.out.splitlines()[1].split()[1:] == [
        made["id"],
        "ann",
        "support@1",
        "2",
        "20",
        "10",
    ]
    assert json.loads(keys("usage", "--json").out)[0]["completion_tokens"] == 10
    assert keys("usage", "--until", "2001-01-01").out == ""
    assert keys("usage", "nobody").out == ""


def test_a_database_that_fails_meanwhile_is_told_without_a_traceback(keys, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    keys("create", "ann")
    with sqlite3.connect(tmp_path / "keys.db") as connection:
        connection.execute("DROP TABLE llmkit_usage")
        connection.execute("CREATE TABLE llmkit_usage (other)")
    shown = keys("usage")
    assert shown.code == 1
    assert "no such column" in shown.err
    assert "SELECT" not in shown.err
