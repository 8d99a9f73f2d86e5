"""vLLM's errors in OpenAI's shape: codes for programs, and words without paths or internals."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.gateway.errors import error_body, error_event, send_error
from serve.gateway.exchange import exchange_of
from serve.gateway.failures import report_failure
from serve.gateway.in_flight import ENGINE_DIED

_LOG = logging.getLogger(__name__)

_EVENT_OF_ERROR = b'data: {"error"'
_LONGEST = 1_000
_PATH = re.compile(r"(?<![\w:/])(?:[A-Za-z]:)?(?:/[\w.@+~-]+){2,}/?")
_FRAME = re.compile(r'\s*File "[^"]*", line \d+.*|Traceback \(most recent call last\):?')

_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {
    401: "invalid_api_key",
    403: "permission_denied",
    405: "method_not_allowed",
    429: "rate_limit_exceeded",
    503: "server_overloaded",
}
_TOO_LONG = ("maximum context length", "cannot be greater than max_model_len")
_ABOUT = (
    ("json schema", "invalid_json_schema"),
    ("json grammar", "invalid_json_schema"),
    ("regex", "invalid_regex"),
    ("grammar", "invalid_grammar"),
    ("structural tag", "invalid_value"),
)
"""What a 400 is about, by vLLM's words. Only what CheckBody could not know comes this far."""


@dataclass(frozen=True)
class EngineError:
    """An error as it goes to the client."""

    status: int
    message: str
    kind: str
    code: str
    param: str | None = None

    def body(self) -> dict[str, Any]:
        """In OpenAI's shape."""
        return error_body(self.message, kind=self.kind, code=self.code, param=self.param)


def translate(status: int, body: Any, path: str) -> EngineError:
    """What an error of vLLM's means to a client of OpenAI's API.

    Args:
        status: the HTTP status that vLLM gave it.
        body: the JSON body, or None if it had none.
        path: of the request, to name its field for the prompt.
    """
    given = body.get("error", body) if isinstance(body, dict) else {}
    given = given if isinstance(given, dict) else {"message": str(given)}
    message = clean(str(given.get("message") or given.get("detail") or "the request failed"))
    if status >= 500 and status not in (501, 503):
        return EngineError(
            status, "the server failed; its log says why. Try again later.", "server_error",
            "internal_error",
        )  # fmt: skip
    kind = "server_error" if status == 503 else _KINDS.get(status, "invalid_request_error")
    if status == 404 and "does not exist" in message:
        return EngineError(404, message, kind, "model_not_found", "model")
    if status == 404 or status == 501:
        return EngineError(404, f"{path} is not offered here: {message}", kind, "unsupported_route")
    if status in _CODES:
        return EngineError(status, message, kind, _CODES[status])
    lowered = message.lower()
    if any(words in lowered for words in _TOO_LONG):
        return EngineError(400, message, kind, "context_length_exceeded", _prompt_field(path))
    code = next((code for words, code in _ABOUT if words in lowered), "invalid_value")
    return EngineError(400, message, kind, code, _param(given.get("param")))


def clean(message: str) -> str:
    """A message without paths, frames of tracebacks and addresses, and not too long."""
    message = _PATH.sub("<path>", _FRAME.sub("", message[: 4 * _LONGEST]))
    message = re.sub(r" at 0x[0-9a-fA-F]+", "", message).strip()
    return message if len(message) <= _LONGEST else message[:_LONGEST] + "..."


def _param(given: Any) -> str | None:
    # "body." is where the field is for FastAPI; the names in the prompt are vLLM's own.
    name = str(given or "").removeprefix("body.").partition("\n")[0][:200]
    return None if name in ("", "body", "input_text", "input_tokens") else name


def _prompt_field(path: str) -> str:
    if path == "/v1/chat/completions":
        return "messages"
    return "prompt" if path == "/v1/completions" else "input"


class OpenAIErrors:
    """Translates error answers and error events; catches what the app raises.

    A stream's first piece is looked at before its headers go out: when the engine refuses a
    request, vLLM has already decided on 200, and the refusal is the stream's first event.
    """

    def __init__(self, app: ASGIApp, dead: Callable[[], bool] = lambda: False) -> None:
        """Translate the answers of ``app``.

        Args:
            app: vLLM's.
            dead: whether its engine has died: it then fails all requests as if each were at fault.
        """
        self._app = app
        self._dead = dead

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the app's answer, its errors translated."""
        answer = _Answer(send, scope["path"], self._dead)
        try:
            await self._app(scope, receive, answer.send)
        except Exception as error:
            report_failure(exchange_of(scope).request_id, error)
            await answer.fail()


class _Answer:
    """One answer on its way: what has been held back of it, and what has gone out."""

    def __init__(self, send: Send, path: str, dead: Callable[[], bool]) -> None:
        self._dead = dead
        self._out = send
        self._path = path
        self._start: Message | None = None
        self._error: list[bytes] | None = None
        self._streams = self._begun = self._complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._streams = _header(message, b"content-type").startswith(b"text/event-stream")
            if message["status"] >= 400:
                self._error = []
            if self._streams or self._error is not None:
                self._start = message
                return
            self._begun = True
        elif message["type"] == "http.response.body":
            if self._complete:
                return
            if self._error is not None:
                await self._collect(message)
                return
            if self._streams and message.get("body", b"").startswith(_EVENT_OF_ERROR):
                await self._error_event(message)
                return
            self._complete = not message.get("more_body", False)
            if self._start is not None:
                start, self._start, self._begun = self._start, None, True
                await self._out(start)
        await self._out(message)

    async def fail(self) -> None:
        """End an answer whose app has raised."""
        error = self._translated(500, None)
        if self._complete:
            return
        if not self._begun:
            await self._refuse(error)
        elif self._streams:
            self._complete = True
            await self._out({"type": "http.response.body", "body": self._event(error)})
        # Of any other answer half is out; the HTTP server closes the connection on it.

    async def _collect(self, message: Message) -> None:
        assert self._error is not None
        assert self._start is not None
        self._error.append(message.get("body", b""))
        if message.get("more_body", False):
            return
        raw, status = b"".join(self._error), self._start["status"]
        error = self._translated(status, _parsed(raw))
        if error.status >= 500:
            _LOG.error("vLLM answered %s with %d: %s", self._path, status, _type_of(_parsed(raw)))
        await self._refuse(error, _header(self._start, b"retry-after").decode("latin-1"))

    async def _error_event(self, message: Message) -> None:
        given = _parsed(message["body"].partition(b"\n")[0].removeprefix(b"data: "))
        inner = given.get("error") if isinstance(given, dict) else None
        code = inner.get("code") if isinstance(inner, dict) else None
        error = self._translated(code if isinstance(code, int) else 500, given)
        if error.status >= 500:
            _LOG.error("vLLM broke off %s: %s", self._path, _type_of(given))
        if not self._begun:
            await self._refuse(error)
            return
        await self._out({**message, "body": self._event(error)})

    async def _refuse(self, error: EngineError, retry_after: str = "") -> None:
        self._complete = self._begun = True
        await send_error(
            self._out,
            error.status,
            error.message,
            kind=error.kind,
            code=error.code,
            param=error.param,
            headers={"retry-after": retry_after} if retry_after else None,
        )

    def _event(self, error: EngineError) -> bytes:
        return error_event(self._path, error.body())

    def _translated(self, status: int, body: Any) -> EngineError:
        """What an error means; of a dead engine's, that it died."""
        error = translate(status, body, self._path)
        if error.status >= 500 and self._dead():
            return EngineError(
                ENGINE_DIED.status, ENGINE_DIED.message, "server_error", ENGINE_DIED.code
            )
        return error


def _header(message: Message, name: bytes) -> bytes:
    for key, value in message.get("headers", ()):
        if key.lower() == name:
            assert isinstance(value, bytes)
            return value
    return b""


def _type_of(body: Any) -> str:
    """What vLLM calls an error, for the log: the message may quote a prompt."""
    error = body.get("error") if isinstance(body, dict) else None
    kind = error.get("type") if isinstance(error, dict) else None
    return kind if isinstance(kind, str) and kind.isidentifier() else "an error without a type"


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None
