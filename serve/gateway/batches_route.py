"""``/v1/batches``: requests that wait for everyone else.

Reference:
    https://platform.openai.com/docs/api-reference/batch
"""

from __future__ import annotations

import time
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.gateway.authenticate import may_call
from serve.gateway.errors import send_json
from serve.gateway.exchange import exchange_of
from serve.gateway.files_route import LONGEST_KEPT, SHORTEST_KEPT
from serve.gateway.offline_answers import (
    found,
    owner_of,
    read_page,
    send_page,
    send_refusal,
    visible,
)
from serve.offline.batches import new_batch_id
from serve.offline.files import new_file_id
from serve.offline.records import BatchRecord
from serve.offline.runner import Runner, Store
from serve.requests.bounds import Bounds
from serve.requests.refusal import RequestRefused, refusal_of
from serve.requests.shape import Metadata, Shape

PREFIX = "/v1/batches"
LONGEST_PAGE = 100
"""Batches of a list at most."""
_LONGEST_WINDOW = 168
"""Hours: a week."""


class ExpiresAfter(Shape):
    """How long the files that a batch makes are kept."""

    anchor: Literal["created_at"]
    """From when they are made."""

    seconds: Annotated[int, Field(ge=SHORTEST_KEPT, le=LONGEST_KEPT)]
    """So long."""


class BatchRequest(Shape):
    """What a new batch is to do."""

    input_file_id: Annotated[str, Field(min_length=1, max_length=100)]
    """A file of requests, from ``POST /v1/files``."""

    endpoint: Literal["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"]
    """What every line asks."""

    completion_window: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,2}h$")]
    """After so many hours, lines that were not run never will be: OpenAI's is 24h."""

    metadata: Metadata | None = None
    """The client's own notes."""

    output_expires_after: ExpiresAfter | None = None
    """How long the files that it makes are kept; 30 days if not given."""


class BatchesRoute:
    """Answers requests below ``/v1/batches``; passes every other on."""

    def __init__(self, app: ASGIApp, store: Store, runner: Runner, bounds: Bounds) -> None:
        self._app = app
        self._store = store
        self._runner = runner
        self._bounds = bounds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        path = scope["path"]
        if path != PREFIX and not path.startswith(PREFIX + "/"):
            await self._app(scope, receive, send)
            return
        batch_id, _, action = path.removeprefix(PREFIX).removeprefix("/").partition("/")
        try:
            if batch_id:
                record = found(scope, self._store.batches.get(batch_id), "batch", batch_id)
                if action == "cancel":
                    await self._runner.cancel(record)
            elif scope["method"] == "POST":
                record = await self._create(scope)
            else:
                page = read_page(
                    scope, default=20, most=LONGEST_PAGE, parameters=("limit", "after")
                )
                await send_page(send, visible(scope, self._store.batches.all()), page)
                return
        except RequestRefused as refused:
            await send_refusal(scope, send, refused)
        else:
            await send_json(send, 200, record.body())

    async def _create(self, scope: Scope) -> BatchRecord:
        asked = _read(scope)
        file = found(scope, self._store.files.get(asked.input_file_id), "file", asked.input_file_id)
        if file.purpose != "batch":
            raise RequestRefused(
                "'input_file_id' must be a file that was uploaded with purpose=batch.",
                param="input_file_id",
            )
        self._check_endpoint(scope, asked.endpoint)
        hours = int(asked.completion_window[:-1])
        if hours > _LONGEST_WINDOW:
            raise RequestRefused(
                f"'completion_window' must be 1h to {_LONGEST_WINDOW}h.", param="completion_window"
            )
        now = time.time()
        record = BatchRecord(
            id=new_batch_id(),
            owner=owner_of(scope),
            endpoint=asked.endpoint,
            input_file_id=file.id,
            completion_window=asked.completion_window,
            metadata=asked.metadata,
            output_seconds=asked.output_expires_after and asked.output_expires_after.seconds,
            created=now,
            expires=now + hours * 3600,
            output_id=new_file_id(),
            error_id=new_file_id(),
        )
        await self._runner.submit(record)
        return record

    def _check_endpoint(self, scope: Scope, endpoint: str) -> None:
        key = exchange_of(scope).key
        if key is not None and not may_call(key, endpoint):
            raise RequestRefused(
                f"the API key {key.id} may not call {endpoint}.",
                code="permission_denied",
                param="endpoint",
                status=403,
            )
        if ("embed" if endpoint == "/v1/embeddings" else "generate") not in self._bounds.tasks:
            raise RequestRefused(
                f"this server's model does not do {endpoint}.",
                code="unsupported_value",
                param="endpoint",
            )


def _read(scope: Scope) -> BatchRequest:
    body = exchange_of(scope).body
    if body is None:
        raise RequestRefused(
            "the body must be a JSON object; send Content-Type: application/json.",
            code="invalid_json",
        )
    try:
        return BatchRequest.model_validate(body)
    except ValidationError as error:
        refusal = refusal_of(error, body)
        raise refusal or RequestRefused("the body is not what it must be.") from None
