"""Responses of the gateway itself: JSON, and errors in the shape that OpenAI's clients read.

Reference:
    https://platform.openai.com/docs/guides/error-codes
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.types import Send


def error_body(message: str, *, kind: str, code: str, param: str | None = None) -> dict[str, Any]:
    """The body of an error, as OpenAI's API gives it.

    Args:
        message: what was wrong and what to do.
        kind: the family of the error, OpenAI's ``type``.
        code: the error's own short name.
        param: the request field at fault, if one is.
    """
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_event(path: str, body: Mapping[str, Any]) -> bytes:
    """An error as the last event of a stream.

    Args:
        path: the route; the responses API names its events.
        body: from `error_body`.
    """
    if path == "/v1/responses":
        told = {"type": "error", **body["error"], "sequence_number": 0}
        return f"event: error\ndata: {json.dumps(told)}\n\n".encode()
    return f"data: {json.dumps(body)}\n\n".encode()


async def send_error(
    send: Send,
    status: int,
    message: str,
    *,
    kind: str,
    code: str,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Answer with an error; see `error_body`."""
    await send_json(send, status, error_body(message, kind=kind, code=code, param=param), headers)


async def send_json(
    send: Send, status: int, body: Any, headers: Mapping[str, str] | None = None
) -> None:
    """Answer with a JSON body."""
    content = json.dumps(body).encode()
    sent = {
        "content-type": "application/json",
        "content-length": str(len(content)),
        **(headers or {}),
    }
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
        }
    )
    await send({"type": "http.response.body", "body": content})
