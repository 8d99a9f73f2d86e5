"""An OpenAI-compatible endpoint as a chat needs it: which models, an answer as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import openai

from llmkit.errors import LlmkitError, UsageError

DEFAULT_URL = "http://127.0.0.1:8000"
_SECONDS_BETWEEN_LOOKS = 1.0
_LOADING = "server_loading"
_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")


class EndpointError(LlmkitError):
    """The server refused, failed, or is not there; the message has its own words."""


@dataclass
class Answer:
    """One answer, filled while it comes."""

    text: str = ""

    finish: str | None = None
    """Why it ended, as the API says it; None while it comes, and of one that was stopped."""

    tokens: int | None = None
    """As the server counted them; None of one that was stopped."""

    sent: float = 0.0
    """When the request went out, on `time.perf_counter`'s clock."""

    first: float | None = None
    """When the first piece came."""

    last: float | None = None
    """When the last piece came."""

    def figures(self) -> str:
        """Time to first token, speed and length, for people; empty before the first token."""
        if self.first is None or self.last is None:
            return ""
        parts = [f"TTFT {self.first - self.sent:.2f} s"]
        if self.tokens is not None:
            if self.tokens > 1 and self.last > self.first:
                parts.append(f"{(self.tokens - 1) / (self.last - self.first):.1f} tokens/s")
            parts.append(f"{self.tokens} tokens")
        if self.finish == "length":
            parts.append("cut at the token limit")
        return " · ".join(parts)


class Endpoint:
    """Asks one server."""

    def __init__(self, url: str, key: str | None = None) -> None:
        """Prepare; nothing is asked yet.

        Args:
            url: where the server is, with or without ``http://`` and ``/v1``.
            key: the API key; without one no key is sent.

        Raises:
            UsageError: the URL names no host.
        """
        self.url = base_url(url)
        # A proxy that is set for the world outside cannot reach this machine.
        local = urlsplit(self.url).hostname in _THIS_MACHINE
        self._client = openai.OpenAI(
            base_url=self.url,
            api_key=key or "none",
            max_retries=0,
            timeout=openai.Timeout(600.0, connect=10.0),
            http_client=openai.DefaultHttpxClient(trust_env=not local),
        )
        self._headers: Any = {} if key else {"Authorization": openai.omit}

    def models(self, waiting: Callable[[], None]) -> list[str]:
        """Names of the models and adapters served, in the server's order.

        Args:
            waiting: called once if the server is there but still loads its model, before it is
                waited for.

        Raises:
            EndpointError: there is no such server, or it refuses.
        """
        told = False
        while True:
            try:
                return [model.id for model in self._listed()]
            except openai.APIStatusError as error:
                if error.code != _LOADING:
                    raise self._explained(error) from error
                if not told:
                    waiting()
                    told = True
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            except openai.OpenAIError as error:
                raise self._explained(error) from error

    def ask(self, request: dict[str, Any], answer: Answer) -> Generator[str, None, None]:
        """Send a chat request and give the answer's text piece by piece.

        Closing the iterator early ends the request, and the server's work on it.

        Args:
            request: the body; streaming is added to it.
            answer: filled with what came.

        Raises:
            EndpointError: the server refuses, fails, or breaks off.
        """
        answer.sent = time.perf_counter()
        try:
            stream = self._client.chat.completions.create(
                model=request["model"],
                messages=request["messages"],
                stream=True,
                stream_options={"include_usage": True},
                # Parameters that OpenAI does not have are none of the method's either.
                extra_body=request,
                extra_headers=self._headers,
            )
            with stream:
                for chunk in stream:
                    yield from self._piece(chunk, answer)
        except openai.OpenAIError as error:
            raise self._explained(error) from error
        if answer.finish is None:
            raise EndpointError("the stream broke off before the answer was complete.")

    def _listed(self) -> Iterable[openai.types.Model]:
        return self._client.models.list(extra_headers=self._headers)

    def _piece(self, chunk: openai.types.chat.ChatCompletionChunk, answer: Answer) -> Iterator[str]:
        if chunk.usage:
            answer.tokens = chunk.usage.completion_tokens
        if not chunk.choices:
            return
        answer.finish = chunk.choices[0].finish_reason or answer.finish
        text = chunk.choices[0].delta.content
        if text:
            answer.last = time.perf_counter()
            answer.first = answer.first or answer.last
            answer.text += text
            yield text

    def _explained(self, error: Exception) -> EndpointError:
        """The server's own words, and what to do where that is known."""
        if isinstance(error, openai.APITimeoutError):
            return EndpointError(f"{self.url}: no answer in time.")
        if isinstance(error, openai.APIConnectionError):
            reason = error.__cause__ or error
            return EndpointError(
                f"{self.url}: {reason}. Is the server running? Start one with: llmkit serve MODEL"
            )
        if isinstance(error, openai.APIError):
            return EndpointError(_api_error(error))
        return EndpointError(str(error))


def base_url(url: str) -> str:
    """The URL that OpenAI clients want, ending in ``/v1``.

    Raises:
        UsageError: it names no host.
    """
    full = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(full)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"{url!r} is not a server's URL. Write it like {DEFAULT_URL}")
    bare = full.rstrip("/")
    return bare if bare.endswith("/v1") else f"{bare}/v1"


def _api_error(error: openai.APIError) -> str:
    status = error.status_code if isinstance(error, openai.APIStatusError) else None
    body = error.body if isinstance(error.body, dict) else {}
    message = body.get("message") or error.message
    names = [str(name) for name in (status, error.type, error.code) if name]
    told = f"{' '.join(names)}: {message}" if names else str(message)
    if status == 401:
        told += " Give the key with --key, or in the environment variable LLMKIT_API_KEY."
    if isinstance(error, openai.APIStatusError) and error.request_id:
        told += f" (request {error.request_id})"
    return told
