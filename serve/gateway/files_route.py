"""``/v1/files``: what batches read and what they make.

Reference:
    https://platform.openai.com/docs/api-reference/files
"""

from __future__ import annotations

import asyncio
import re
from typing import IO

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.gateway.body import ClientLeft
from serve.gateway.errors import send_json
from serve.gateway.offline_answers import (
    found,
    owner_of,
    read_page,
    send_page,
    send_refusal,
    visible,
)
from serve.offline.batches import Batches
from serve.offline.files import Files
from serve.offline.records import FileRecord
from serve.offline.run import SECONDS_KEPT
from serve.offline.upload import Form, announced_length, receive_form, too_large
from serve.requests.refusal import RequestRefused, shown

PREFIX = "/v1/files"
SHORTEST_KEPT, LONGEST_KEPT = 3600, SECONDS_KEPT
"""Seconds for which a file may be kept, as OpenAI has it."""
LONGEST_PAGE = 10_000
"""Files of a list at most, and if not said."""
_AROUND = 16 * 1024
"""Bytes of a form beside the file's content."""
_PIECE = 256 * 1024


class FilesRoute:
    """Answers requests below ``/v1/files``; passes every other on."""

    def __init__(self, app: ASGIApp, files: Files, batches: Batches, largest: int) -> None:
        """Answer for ``files``.

        Args:
            app: answers everything else.
            files: the files.
            batches: what may read them.
            largest: bytes of a file.
        """
        self._app = app
        self._files = files
        self._batches = batches
        self._largest = largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        path = scope["path"]
        if path != PREFIX and not path.startswith(PREFIX + "/"):
            await self._app(scope, receive, send)
            return
        file_id, _, what = path.removeprefix(PREFIX).removeprefix("/").partition("/")
        try:
            if not file_id and scope["method"] == "POST":
                await self._upload(scope, receive, send)
            elif not file_id:
                await self._list(scope, send)
            else:
                record = found(scope, self._files.get(file_id), "file", file_id)
                if scope["method"] == "DELETE":
                    await self._delete(record, send)
                elif what == "content":
                    await self._content(record, send)
                else:
                    await send_json(send, 200, record.body())
        except RequestRefused as refused:
            await send_refusal(scope, send, refused, unread=scope["method"] == "POST")
        except ClientLeft:
            pass

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        _refuse_other_sites(scope)
        length = announced_length(scope)
        if length is not None and length > self._largest + _AROUND:
            raise too_large(self._largest)
        owner = owner_of(scope)
        most = self._largest if length is None else min(length, self._largest)
        with self._files.incoming(owner, most) as file:
            form = await receive_form(scope, receive, file, self._largest)
            seconds = _purpose_and_expiry(form)
            await asyncio.to_thread(file.finish)
            record = await self._files.keep(
                file.path,
                owner,
                filename=_plain_name(form.filename),
                purpose="batch",
                seconds=seconds,
            )
        await send_json(send, 200, record.body())

    async def _list(self, scope: Scope, send: Send) -> None:
        parameters = ("limit", "after", "order", "purpose")
        page = read_page(scope, default=LONGEST_PAGE, most=LONGEST_PAGE, parameters=parameters)
        there = [of for of in self._files.all() if self._files.get(of.id) is not None]
        wanted = [of for of in there if page.purpose in (None, of.purpose)]
        await send_page(send, visible(scope, wanted), page)

    async def _delete(self, record: FileRecord, send: Send) -> None:
        if self._batches.uses(record.id):
            raise RequestRefused(
                "a batch that has not ended reads this file. Cancel it first.",
                code="file_in_use",
                status=409,
            )
        await self._files.delete(record)
        await send_json(send, 200, {"id": record.id, "object": "file", "deleted": True})

    async def _content(self, record: FileRecord, send: Send) -> None:
        try:
            file = await asyncio.to_thread(self._files.path(record.id).open, "rb")
        except FileNotFoundError:  # deleted just now
            raise RequestRefused(
                "the file was deleted.", code="file_not_found", param="id", status=404
            ) from None
        with file:
            await _send_file(record, file, send)


async def _send_file(record: FileRecord, file: IO[bytes], send: Send) -> None:
    headers = {
        "content-type": "application/octet-stream",
        "content-length": str(record.bytes),
        "content-disposition": f'attachment; filename="{record.id}.jsonl"',
        "x-content-type-options": "nosniff",
    }
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
    )
    while piece := await asyncio.to_thread(file.read, _PIECE):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _purpose_and_expiry(form: Form) -> int:
    """Check the form's fields; for how many seconds the file is kept."""
    fields = form.fields
    purpose = fields.get("purpose")
    if purpose != "batch":
        problem = "is required" if purpose is None else f"is {shown(purpose)}"
        raise RequestRefused(
            f"'purpose' {problem}; this server takes files for batches: purpose=batch.",
            code="missing_required_parameter" if purpose is None else "invalid_value",
            param="purpose",
        )
    known = ("purpose", "file", "expires_after[anchor]", "expires_after[seconds]")
    for name in fields:
        if name not in known:
            raise RequestRefused(
                f"{shown(name)} is not a field of this form; they are {', '.join(known)}.",
                code="unrecognized_request_argument",
                param=name,
            )
    if fields.get("expires_after[anchor]", "created_at") != "created_at":
        raise RequestRefused(
            "'expires_after[anchor]' must be created_at.", param="expires_after[anchor]"
        )
    text = fields.get("expires_after[seconds]", str(SECONDS_KEPT))
    if not (text.isascii() and text.isdigit() and len(text) < 10) or not (
        SHORTEST_KEPT <= int(text) <= LONGEST_KEPT
    ):
        raise RequestRefused(
            f"'expires_after[seconds]' must be {SHORTEST_KEPT} to {LONGEST_KEPT}, "
            f"but is {shown(text)}.",
            param="expires_after[seconds]",
        )
    return int(text)


def _plain_name(given: str | None) -> str:
    """A client's file name without folders and without what no name has. Only ever shown."""
    name = (given or "").replace("\\", "/").rpartition("/")[2]
    return re.sub(r"[\x00-\x1f\x7f]", "", name)[:255] or "batch.jsonl"


def _refuse_other_sites(scope: Scope) -> None:
    """Refuse what a page of another site sends through the browser of someone on this machine."""
    for name, value in scope["headers"]:
        if name == b"sec-fetch-site" and value not in (b"same-origin", b"none"):
            raise RequestRefused(
                "files are not taken from pages of other sites.",
                code="permission_denied",
                status=403,
            )
