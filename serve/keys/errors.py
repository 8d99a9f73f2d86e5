"""What can be wrong with the keys' database, and with what is asked of it."""

from __future__ import annotations

from serve.errors import ServeError


class DatabaseNotUsable(ServeError):
    """The database of keys cannot be opened; the URL is shown without its password."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(
            f"the keys' database {where} cannot be used: {problem}. Name another with "
            "database=FILE or database=postgresql://USER@HOST/NAME (or in LLMKIT_DATABASE), or "
            "serve without keys, on this machine only: database=none."
        )


class DatabaseNotReached(DatabaseNotUsable):
    """It does not answer, or not in time: a supervisor may try again."""

    exit_code = 1


class NoDatabase(ServeError):
    """Keys were asked for where the database is set to ``none``."""

    def __init__(self) -> None:
        super().__init__(
            "there are no keys without a database: it is set to 'none'. Name one with --database "
            "FILE or --database postgresql://USER@HOST/NAME, or unset LLMKIT_DATABASE."
        )


class KeyNotFound(ServeError):
    """No key has this id."""

    def __init__(self, key_id: str) -> None:
        super().__init__(
            f"no key has the id {key_id!r}. `llmkit keys list` shows the ids; of a key "
            "sk-llmkit-ID-SECRET it is the part after the second dash."
        )
