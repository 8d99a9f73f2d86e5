"""Ask a running server about its adapters."""

import os
from typing import Any
from urllib.parse import quote

import httpx

from llmkit.errors import CheckFailed, LlmkitError, UsageError

_SECONDS = 300.0
"""A load hashes the base once, and an unload waits for the version's requests."""
_OF_CHECKS = {"adapter_not_usable", "adapter_unverified"}


def ask(url: str, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Send one request to ``/v1/adapters`` and return the answer.

    Args:
        url: the server's, with or without ``/v1``.
        method: of HTTP.
        path: below ``/v1/adapters``.
        body: sent as JSON, if there is one.

    Raises:
        CheckFailed: the adapter does not fit what is served.
        UsageError: the server refused what was asked for.
        LlmkitError: no llmkit server answers there, or it failed.
    """
    key = os.environ.get("LLMKIT_API_KEY")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    root = url.rstrip("/").removesuffix("/v1")
    address = f"{root}/v1/adapters{quote(path, safe='/@')}"
    try:
        answer = httpx.request(method, address, json=body, headers=headers, timeout=_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise LlmkitError(
            f"{url}: no answer ({error}). Give the address that `llmkit serve` printed."
        ) from None
    try:
        told: Any = answer.json()
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise LlmkitError(f"{url}: answered {answer.status_code} and no JSON. Is it llmkit's?")
    if answer.is_success:
        return told
    problem = told.get("error")
    problem = problem if isinstance(problem, dict) else {"message": told}
    raise _kind(answer.status_code, problem.get("code"))(f"{url}: {problem.get('message')}")


def _kind(status: int, code: object) -> type[LlmkitError]:
    if code in _OF_CHECKS:
        return CheckFailed
    return LlmkitError if status >= 500 else UsageError
