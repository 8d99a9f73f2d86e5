"""``llmkit keys``: parsing and printing only. Nothing heavy is imported here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from serve.keys.database import Database
    from serve.keys.store import StoredKey
    from serve.keys.usage import UsageRow

app = typer.Typer(
    help="Keys of the server: make, list, revoke; what they used.", no_args_is_help=True
)

DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="FILE_OR_URL",
        help="The keys' database, as the server's setting; by default LLMKIT_DATABASE, or "
        "llmkit.db among the user's data.",
    ),
]
Patterns = list[str] | None
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="Whose key it is, for people to read.")],
    database: DatabaseOption = None,
    admin: Annotated[
        bool, typer.Option("--admin", help="May load adapters, read metrics and all usage.")
    ] = False,
    models: Annotated[
        Patterns,
        typer.Option("--model", help="A model or adapter it may use, or a pattern; repeatable."),
    ] = None,
    routes: Annotated[
        Patterns,
        typer.Option("--route", help="A route it may call, or a pattern; repeatable."),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            "--expires", metavar="WHEN", help="30d, 12h, or a date and time, e.g. 2030-01-31."
        ),
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1)] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1)] = None,
    concurrent_requests: Annotated[int | None, typer.Option(min=1)] = None,
    tokens_per_month: Annotated[int | None, typer.Option(min=1)] = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it: the only time that it is shown."""
    from serve.keys.key import Limits
    from serve.keys.store import KeyStore

    _check_routes(routes or ())
    moment = None if expires is None else _moment(expires)
    limits = Limits(requests_per_minute, tokens_per_minute, concurrent_requests, tokens_per_month)
    if not name.strip() or not name.isprintable():
        raise typer.BadParameter("give a name that can be printed", param_hint="NAME")
    with _opened(database) as opened:
        made = KeyStore(opened).create(
            name,
            admin=admin,
            models=tuple(models) if models else None,
            routes=tuple(routes) if routes else None,
            expires=moment,
            limits=limits,
        )
    if as_json:
        typer.echo(json.dumps({"id": made.key.id, "name": name, "key": made.text}))
        return
    typer.echo(made.text)
    typer.echo(
        f"The key {made.key.id} for {name}, in {opened.where}. It cannot be shown again.", err=True
    )


@app.command("list")
def keys_list(database: DatabaseOption = None, as_json: Json = False) -> None:
    """List the keys; never their secrets."""
    from serve.keys.store import KeyStore

    with _opened(database) as opened:
        found = KeyStore(opened).all()
    if as_json:
        typer.echo(json.dumps([_as_json(stored) for stored in found], indent=2))
        return
    if not found:
        typer.echo(f"no keys in {opened.where}. Make one: llmkit keys create NAME", err=True)
    for line in _table(_KEYS, [_row(stored) for stored in found]):
        typer.echo(line)


@app.command("revoke")
def keys_revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, from the list.")],
    database: DatabaseOption = None,
) -> None:
    """Make a key hold no longer; running servers refuse it within a second."""
    from serve.keys.secret import parsed
    from serve.keys.store import KeyStore

    with _opened(database) as opened:
        # A whole key names its id too.
        was = KeyStore(opened).revoke(parsed(key_id)[0] or key_id)
    said = f"revoked {was.key.id} ({was.key.name})"
    typer.echo(said if was.revoked is None else f"{said}; it was already")


@app.command("usage")
def keys_usage(
    key_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="A key's id; every key if not given.")
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="DAY", help="First day, UTC.")] = None,
    until: Annotated[str | None, typer.Option(metavar="DAY", help="Last day, UTC.")] = None,
    database: DatabaseOption = None,
    as_json: Json = False,
) -> None:
    """Show what keys used, by day and by model or adapter.

    A running server writes its counts down every second.
    """
    from serve.keys.usage import Usage

    days = _day(since, "--since"), _day(until, "--until")
    with _opened(database) as opened:
        rows = Usage(opened).read(key_id=key_id, since=days[0], until=days[1])
    if as_json:
        typer.echo(
            json.dumps([{**vars(row), "day": row.day.isoformat()} for row in rows], indent=2)
        )
        return
    if not rows:
        typer.echo(f"no usage in {opened.where} of such keys and days", err=True)
    for line in _table(_USED, [tuple(map(str, _used(row))) for row in rows]):
        typer.echo(line)


@contextmanager
def _opened(name: str | None) -> Iterator[Database]:
    """The database; what fails in it is told without a traceback."""
    from sqlalchemy.exc import SQLAlchemyError

    from serve.keys.database import Database, database_named

    database = Database(database_named(name))
    try:
        yield database
    except SQLAlchemyError as error:
        raise database.not_usable(error) from None
    finally:
        database.close()


def _check_routes(patterns: Iterable[str]) -> None:
    from serve.gateway.routes import ROUTES

    for pattern in patterns:
        if not any(fnmatchcase(route, pattern) for route in ROUTES):
            raise typer.BadParameter(
                f"{pattern!r} is none of the server's routes and no pattern of any: "
                f"{', '.join(ROUTES)}",
                param_hint="--route",
            )


def _moment(text: str) -> datetime:
    """A moment given as an age to come or as a date, which is UTC unless it says otherwise."""
    age = re.fullmatch(r"(\d+)([dh])", text)
    try:
        if age:
            hours = int(age[1]) * (24 if age[2] == "d" else 1)
            return datetime.now(UTC) + timedelta(hours=hours)
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is neither an age (30d, 12h) nor a date (2030-01-31, 2030-01-31T12:00)",
            param_hint="--expires",
        ) from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if moment <= datetime.now(UTC):
        raise typer.BadParameter(f"{text} is past", param_hint="--expires")
    return moment


def _day(text: str | None, option: str) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no day (2030-01-31)", param_hint=option) from None


def _state(stored: StoredKey) -> str:
    expires = stored.key.expires
    if stored.revoked is not None:
        return "revoked"
    return "expired" if expires is not None and expires <= datetime.now(UTC) else "holds"


def _as_json(stored: StoredKey) -> dict[str, Any]:
    key = stored.key
    return {
        "id": key.id,
        "name": key.name,
        "state": _state(stored),
        "admin": key.admin,
        "models": key.models,
        "routes": key.routes,
        "created": stored.created.isoformat(),
        "expires": key.expires and key.expires.isoformat(),
        "revoked": stored.revoked and stored.revoked.isoformat(),
        **vars(key.limits),
    }


_KEYS = ("ID", "NAME", "STATE", "MADE", "EXPIRES", "MAY", "LIMITS")
_USED = ("DAY", "ID", "NAME", "MODEL", "REQUESTS", "PROMPT TOKENS", "COMPLETION TOKENS")


def _used(row: UsageRow) -> tuple[object, ...]:
    counts = (row.requests, row.prompt_tokens, row.completion_tokens)
    return (row.day, row.key_id, row.key_name, row.model, *counts)


def _row(stored: StoredKey) -> tuple[str, ...]:
    key = stored.key
    may = ["admin"] if key.admin else []
    may += [f"models {', '.join(key.models)}"] if key.models is not None else []
    may += [f"routes {', '.join(key.routes)}"] if key.routes is not None else []
    limits = [f"{n} {name.replace('_', ' ')}" for name, n in vars(key.limits).items() if n]
    return (
        key.id,
        key.name,
        _state(stored),
        f"{stored.created:%Y-%m-%d}",
        f"{key.expires:%Y-%m-%d %H:%M}" if key.expires else "never",
        "; ".join(may) or "all",
        ", ".join(limits) or "none",
    )


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    wide = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    return [
        "  ".join(f"{text:<{width}}" for text, width in zip(row, wide, strict=True)).rstrip()
        for row in [headings, *rows]
    ]
