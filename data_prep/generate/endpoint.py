"""A teacher behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from contextlib import suppress
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

import httpx2
import openai
from pydantic import BaseModel, ValidationError

from data_prep.generate.asking import Ask, GenerationStopped, Reply
from data_prep.generate.pace import Pace
from data_prep.generate.settings import TeacherConfig

_PASSING = {408, 409, 425, 429}
"""Status codes beside 5xx after which the same call may succeed."""
_FATAL = {401, 402, 403, 404}
"""Status codes that every call will meet."""
_QUOTA = "insufficient_quota"
"""The code of a 429 that waiting does not cure."""
_SCHEMA_REFUSED = {400, 422, 501}


class Endpoint:
    """Asks an endpoint until it answers, at the pace that is allowed."""

    def __init__(
        self,
        client: openai.AsyncOpenAI,
        config: TeacherConfig,
        say: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """Ask through a client.

        Args:
            client: of the endpoint, without retries of its own: they are counted and paced here.
            config: the teacher.
            say: told what a person may want to know, such as a long wait.
        """
        self._client = client
        self._config = config
        self._pace = Pace(config.limits)
        self._say = say
        self._takes_schemas = config.json_schema
        self._stopping = asyncio.Event()
        self._refused_before = False
        self.retried = 0
        """Attempts that were made again."""

    def stop(self) -> None:
        """Make no more attempts; those under way may end."""
        self._stopping.set()

    async def complete(self, ask: Ask) -> Reply:
        """Answer a call.

        Raises:
            GenerationStopped: the endpoint refuses every call (key, model, quota), or this one
                failed more often than ``limits.retries`` allows.
        """
        failed = 0
        while True:
            await self._sleep(self._pace.seconds_until(ask.most_tokens))
            while pause := self._pace.pause_left():
                await self._sleep(pause)
            try:
                reply = await self._attempt(ask)
            except openai.APIError as error:
                refused = self._refused(error)
                if refused:
                    return refused
                failed += 1
                self._give_up_or_wait(error, failed)
                self.retried += 1
                await self._sleep(self._wait_after(error, failed))
            else:
                self._pace.correct(ask.most_tokens, reply.prompt_tokens + reply.completion_tokens)
                return reply

    async def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), seconds)
        if self._stopping.is_set():
            raise GenerationStopped("stopped before the next attempt")

    async def _attempt(self, ask: Ask) -> Reply:
        schema = ask.schema if self._takes_schemas else None
        try:
            return _reply_of(await self._create(ask, with_schema=schema is not None), ask)
        except openai.APIStatusError as error:
            if schema is None or error.status_code not in _SCHEMA_REFUSED:
                raise
        reply = _reply_of(await self._create(ask, with_schema=False), ask)
        if self._takes_schemas:
            self._takes_schemas = False
            self._say("the endpoint does not enforce JSON schemas: answers are checked here alone")
        return reply

    async def _create(self, ask: Ask, *, with_schema: bool) -> Completion:
        sampling = ask.sampling.model_dump(exclude_none=True)
        given: dict[str, Any] = {
            "model": self._config.model,
            "messages": [turn.as_dict() for turn in ask.messages],
            **sampling,
        }
        if self._config.send_seed:
            given["seed"] = ask.seed
        if with_schema:
            given["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": dict(ask.schema or {}), "strict": True},
            }
        response = await self._post(given | self._config.extra_body)
        try:
            return Completion.model_validate_json(response.content)
        except ValidationError:
            begins = " ".join(response.text.split())[:80]
            raise openai.APIResponseValidationError(
                response, None, message=f"not a chat completion: {begins!r}"
            ) from None

    async def _post(self, body: dict[str, Any]) -> httpx2.Response:
        """Send a request.

        chat.completions.create() would look at every part of a body that is known to be right,
        and build the whole answer: half of the time of a call.
        """
        try:
            async with asyncio.timeout(self._config.limits.timeout):
                return await self._client.post(
                    "/chat/completions", cast_to=httpx2.Response, body=body
                )
        except TimeoutError:
            request = httpx2.Request("POST", str(self._client.base_url))
            raise openai.APITimeoutError(request) from None

    def _refused(self, error: openai.APIError) -> Reply | None:
        """The reply to a call that this endpoint will not take; None where others fail as well."""
        if not isinstance(error, openai.APIStatusError) or error.status_code in _FATAL | _PASSING:
            return None
        if error.status_code >= 500:
            return None
        if not self._refused_before:
            self._refused_before = True
            self._say(f"the endpoint refuses a call, which counts as unanswered: {_words(error)}")
        return Reply(_words(error), "refused", 0, 0)

    def _give_up_or_wait(self, error: openai.APIError, failed: int) -> None:
        status = getattr(error, "status_code", None)
        where = f"{self._client.base_url} ({self._config.model})"
        if status in _FATAL or error.code == _QUOTA:
            raise GenerationStopped(f"{where} refuses: {_words(error)}. {_remedy(status)}")
        if failed > self._config.limits.retries:
            raise GenerationStopped(
                f"{where} did not answer in {failed} attempts at one call, the last time: "
                f"{_words(error)}. Run the same command again when it does: it goes on where it "
                "stopped."
            )
        asked = _retry_after(error)
        if asked is not None and asked > self._config.limits.patience:
            raise GenerationStopped(
                f"{where} asks to wait {asked:.0f} seconds, longer than limits.patience "
                f"({self._config.limits.patience:g}). Run the same command again then: it goes on "
                "where it stopped."
            )

    def _wait_after(self, error: openai.APIError, failed: int) -> float:
        asked = _retry_after(error)
        if asked is None or asked <= 0:  # a date may look past where clocks differ
            longest = min(60.0, 0.5 * 2 ** (failed - 1))
            return float(longest * random.uniform(0.75, 1))
        self._pace.pause(asked)
        if asked >= 10:
            self._say(f"the endpoint asks to wait {asked:.0f} seconds")
        return asked


class Message(BaseModel):
    """What was said."""

    content: str | None = None


class Choice(BaseModel):
    """One answer."""

    message: Message | None = None
    finish_reason: str | None = None
    """Some servers leave it out."""


class Usage(BaseModel):
    """What was counted."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Completion(BaseModel):
    """What is read of an answer to a chat request."""

    choices: list[Choice]
    usage: Usage | None = None


def _reply_of(done: Completion, ask: Ask) -> Reply:
    if not done.choices:
        return Reply("the endpoint answered without a choice", "refused", ask.prompt_tokens, 0)
    choice = done.choices[0]
    text = (choice.message.content if choice.message else None) or ""
    usage = done.usage or Usage()
    return Reply(
        without_thoughts(text),
        choice.finish_reason or "stop",
        ask.prompt_tokens if usage.prompt_tokens is None else usage.prompt_tokens,
        len(text) // 4 + 1 if usage.completion_tokens is None else usage.completion_tokens,
    )


_THOUGHTS = re.compile(r"\A\s*<think>.*?(?:</think>|\Z)|\A(?:(?!<think>).)*?</think>", re.DOTALL)
"""Some templates write the opening tag into the question, so that an answer has only the other."""


def without_thoughts(text: str) -> str:
    """What stands behind the thoughts that a reasoning model writes first."""
    return _THOUGHTS.sub("", text).strip()


def _retry_after(error: openai.APIError) -> float | None:
    """Seconds that the endpoint asks to wait, told in seconds, milliseconds or as a date."""
    if not isinstance(error, openai.APIStatusError):
        return None
    headers = error.response.headers
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        said = headers.get(name)
        if said is None:
            continue
        try:
            return max(0.0, float(said) * unit)
        except ValueError:
            pass
        try:
            return max(0.0, parsedate_to_datetime(said).timestamp() - time())
        except (ValueError, TypeError):
            continue
    return None


def _words(error: openai.APIError) -> str:
    """What the endpoint said, on one line."""
    cause = error.__cause__
    # aiohttp's transport calls any lost connection a time-out while connecting.
    late = isinstance(error, openai.APITimeoutError) and not isinstance(
        cause, httpx2.ConnectTimeout
    )
    if late:
        return "no answer within limits.timeout"
    if isinstance(error, openai.APIConnectionError):
        return f"no connection ({cause or error})"
    body = error.body if isinstance(error.body, dict) else {}
    said = str(body.get("message") or error.message)
    status = getattr(error, "status_code", "")
    return " ".join(f"{status} {said}".split())[:300].rstrip(".")


def _remedy(status: int | None) -> str:
    if status in (401, 403):
        return "Set the variable that teacher.api_key_env names to a key that may use it."
    if status == 404:
        return "Look at teacher.base_url (it ends in /v1) and teacher.model."
    return "Its account has nothing left; the same command goes on where it stopped."
