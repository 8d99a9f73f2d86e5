"""``GET /v1/usage``: what a key used; for admins, what every key used."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.gateway.errors import send_error, send_json
from serve.gateway.exchange import exchange_of
from serve.keys.opening import Keys
from serve.keys.usage import UsageRow

PATH = "/v1/usage"
_PARAMETERS = ("since", "until", "key")
DAYS = 31
"""Days that are told where the query names no first one."""
MOST_ROWS = 10_000
"""Rows of one answer: some 2 MB."""


class UsageRoute:
    """Answers ``/v1/usage``; passes every other request on.

    Query: ``since`` and ``until``, the first and the last day (``2030-01-31``, UTC), and for
    admins ``key``, one key's id. Without ``since`` it is `DAYS` days up to the last.
    """

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if scope["path"] != PATH:
            await self._app(scope, receive, send)
            return
        exchange = exchange_of(scope)
        asking = exchange.key
        try:
            query = _query(scope)
        except _WrongQuery as error:
            exchange.rejected = "invalid_query"
            await send_error(
                send,
                400,
                str(error),
                kind="invalid_request_error",
                code="invalid_query",
                param=error.name,
            )
            return
        if asking is not None and not asking.admin:
            if query.get("key_id", asking.id) != asking.id:
                exchange.rejected = "permission_denied"
                await send_error(
                    send,
                    403,
                    f"the API key {asking.id} may read its own usage only; others' is for admins.",
                    kind="permission_error",
                    code="permission_denied",
                    param="key",
                )
                return
            query = {**query, "key_id": asking.id}
        usage = self._keys.usage
        try:
            rows: list[UsageRow] = []
            if usage is not None:
                rows = await asyncio.to_thread(partial(usage.read, **query, most=MOST_ROWS + 1))
        except SQLAlchemyError:
            exchange.rejected = "usage_unavailable"
            await send_error(
                send,
                503,
                "the database of usage does not answer. Try again in a moment.",
                kind="server_error",
                code="usage_unavailable",
                headers={"retry-after": "5"},
            )
            return
        if len(rows) > MOST_ROWS:
            exchange.rejected = "invalid_query"
            await send_error(
                send,
                400,
                f"more than {MOST_ROWS} rows, from {query['since']} on: ask for fewer days, with "
                "since and until, or for one key.",
                kind="invalid_request_error",
                code="invalid_query",
                param="since",
            )
            return
        await send_json(send, 200, {"object": "list", "data": [_body(row) for row in rows]})


class _WrongQuery(Exception):
    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def _query(scope: Scope) -> Mapping[str, Any]:
    """The arguments for `Usage.read`."""
    found: dict[str, Any] = {}
    text = scope.get("query_string", b"").decode("latin-1")
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name not in _PARAMETERS:
            raise _WrongQuery(name[:50], f"/v1/usage takes {', '.join(_PARAMETERS)} in its query.")
        if name == "key":
            if not value.isalnum():
                raise _WrongQuery(name, "key must be a key's id, as `llmkit keys list` shows it.")
            found["key_id"] = value
            continue
        try:
            found[name] = date.fromisoformat(value)
        except ValueError:
            raise _WrongQuery(name, f"{name} must be a day such as 2030-01-31.") from None
    # What is asked for by default stays small however long the server has been there.
    until = found.get("until", datetime.now(UTC).date())
    found.setdefault("since", max(until, date.min + timedelta(DAYS)) - timedelta(DAYS - 1))
    return found


def _body(row: UsageRow) -> dict[str, Any]:
    total = row.prompt_tokens + row.completion_tokens
    return {
        "object": "usage",
        **asdict(row),
        "day": row.day.isoformat(),
        "total_tokens": total,
    }
