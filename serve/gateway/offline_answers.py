"""What the routes of files and batches share: who sees what, lists in pages, refusals."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qsl

from starlette.types import Scope, Send

from serve.gateway.errors import send_error, send_json
from serve.gateway.exchange import exchange_of
from serve.requests.refusal import RequestRefused, shown

_NUMBER = re.compile("[0-9]{1,9}")
_KINDS = {403: "permission_error", 429: "rate_limit_error"}


class _Owned(Protocol):
    id: str
    owner: str | None

    def body(self) -> dict[str, Any]: ...


Record = TypeVar("Record", bound=_Owned)


def owner_of(scope: Scope) -> str | None:
    """The id of the key that asks; None while the server is open."""
    key = exchange_of(scope).key
    return key.id if key is not None else None


def visible(scope: Scope, records: Sequence[Record]) -> list[Record]:
    """What a key may see: what it made. Admins see all, and so does everyone on an open server."""
    key = exchange_of(scope).key
    if key is None or key.admin:
        return list(records)
    return [record for record in records if record.owner == key.id]


def found(scope: Scope, record: Record | None, what: str, asked: str) -> Record:
    """A record, if the key may see it.

    Raises:
        RequestRefused: 404, whether it is not there or another's.
    """
    if record is None or not visible(scope, [record]):
        raise RequestRefused(
            f"there is no {what} {shown(asked)}.", code=f"{what}_not_found", param="id", status=404
        )
    return record


@dataclass(frozen=True)
class Page:
    """Which part of a list is asked for."""

    limit: int
    after: str | None
    newest_first: bool
    purpose: str | None


def read_page(scope: Scope, *, default: int, most: int, parameters: Sequence[str]) -> Page:
    """The page that a query asks for.

    Args:
        scope: of the request.
        default: things in a page if not said.
        most: things in a page at most.
        parameters: what the query may name.

    Raises:
        RequestRefused: something in the query is not offered or out of range.
    """
    query: dict[str, str] = {}
    text = scope.get("query_string", b"").decode("latin-1")
    for name, value in parse_qsl(text, keep_blank_values=True, max_num_fields=None):
        if name not in parameters:
            raise RequestRefused(
                f"{shown(name)} is not a parameter here; they are {', '.join(parameters)}.",
                code="invalid_query",
                param=name[:50],
            )
        query[name] = value
    limit, order = query.get("limit", str(default)), query.get("order", "desc")
    if not (_NUMBER.fullmatch(limit) and 1 <= int(limit) <= most):
        raise RequestRefused(
            f"'limit' must be 1 to {most}, but is {shown(limit)}.",
            code="invalid_query",
            param="limit",
        )
    if order not in ("asc", "desc"):
        raise RequestRefused(
            f"'order' must be asc or desc, but is {shown(order)}.",
            code="invalid_query",
            param="order",
        )
    return Page(int(limit), query.get("after"), order == "desc", query.get("purpose"))


async def send_page(send: Send, records: Sequence[Record], page: Page) -> None:
    """Answer with part of a list.

    Args:
        send: of the request.
        records: the whole list, the oldest first.
        page: which part.

    Raises:
        RequestRefused: ``after`` is none of them.
    """
    ordered = list(reversed(records)) if page.newest_first else list(records)
    first = 0
    if page.after is not None:
        places = [place for place, record in enumerate(ordered) if record.id == page.after]
        if not places:
            raise RequestRefused(
                f"'after' is {shown(page.after)}, which is not in this list.",
                code="invalid_query",
                param="after",
            )
        first = places[0] + 1
    part = ordered[first : first + page.limit]
    await send_json(
        send,
        200,
        {
            "object": "list",
            "data": [record.body() for record in part],
            "first_id": part[0].id if part else None,
            "last_id": part[-1].id if part else None,
            "has_more": first + page.limit < len(ordered),
        },
    )


async def send_refusal(
    scope: Scope, send: Send, refused: RequestRefused, *, unread: bool = False
) -> None:
    """Answer with a refusal.

    Args:
        scope: of the request.
        send: likewise.
        refused: why.
        unread: whether some of the body was not read, and would be taken for the next request.
    """
    exchange_of(scope).rejected = refused.code
    headers: Mapping[str, str] = {"connection": "close"} if unread else {}
    await send_error(
        send,
        refused.status,
        refused.message,
        kind=_KINDS.get(refused.status, refused.kind),
        code=refused.code,
        param=refused.param,
        headers=headers,
    )
