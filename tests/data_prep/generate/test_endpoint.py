"""An endpoint is asked until it answers: retries, pauses, refusals."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from scripted_teacher import ScriptedTeacher, serving

from data_prep.generate.asking import GenerationStopped, Reply, SamplingConfig, ask_of
from data_prep.generate.endpoint import Endpoint, without_thoughts
from data_prep.generate.settings import TeacherConfig

SAMPLING = SamplingConfig()


@asynccontextmanager
async def asking(
    scripted: ScriptedTeacher, say: Callable[[str], None] = lambda _text: None, **settings: Any
) -> AsyncIterator[Endpoint]:
    with serving(scripted) as url:
        config = TeacherConfig.model_validate({"model": "m", "base_url": url} | settings)
        async with openai.AsyncOpenAI(
            base_url=url,
            api_key="k",
            max_retries=0,
            timeout=config.limits.timeout,
            http_client=openai.DefaultAioHttpClient(),
        ) as client:
            yield Endpoint(client, config, say)


class Failing(ScriptedTeacher):
    """Answers with some responses first."""

    def __init__(self, *responses: Response) -> None:
        super().__init__()
        self.first = list(responses)
        self.times: list[float] = []

    async def _complete(self, request: Request) -> Response:
        self.times.append(time.monotonic())
        if self.first:
            return self.first.pop(0)
        return await super()._complete(request)


def failing(status: int, error: dict[str, Any] | None = None, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return JSONResponse({"error": error or {"message": "no"}}, status, named)


async def complete(scripted: ScriptedTeacher, **settings: Any) -> Reply:
    async with asking(scripted, **settings) as endpoint:
        return await endpoint.complete(ask_of("answer", "Tell me", SAMPLING, 7))


def test_a_call_says_what_was_configured():
    scripted = ScriptedTeacher()
    reply = asyncio.run(complete(scripted, extra_body={"top_k": 20}, sampling={"max_tokens": 9}))
    (body,) = scripted.bodies
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Tell me"}],
        "temperature": 0.7,
        "top_p": 0.95,
        "max_tokens": 1024,
        "seed": 7,
        "top_k": 20,
    }
    assert reply.is_whole
    assert (reply.prompt_tokens, reply.completion_tokens) == (2, 7)


def test_no_seed_is_sent_to_an_endpoint_that_refuses_seeds():
    scripted = ScriptedTeacher()
    asyncio.run(complete(scripted, send_seed=False))
    assert "seed" not in scripted.bodies[0]


@pytest.mark.parametrize(
    "headers", [{"retry_after": "0.3"}, {"retry_after_ms": "300"}, {"retry_after": "soon"}]
)
def test_a_429_is_tried_again_when_the_endpoint_says(headers: dict[str, str]):
    scripted = Failing(failing(429, **headers))
    assert asyncio.run(complete(scripted)).is_whole
    first, second = scripted.times
    assert second - first >= 0.3


def test_a_pause_holds_for_all_calls():
    scripted = Failing(failing(429, retry_after="0.4"))

    async def two() -> None:
        async with asking(scripted) as endpoint:
            first = asyncio.create_task(endpoint.complete(ask_of("a", "one", SAMPLING, 1)))
            await asyncio.sleep(0.15)
            await endpoint.complete(ask_of("a", "two", SAMPLING, 2))
            await first

    asyncio.run(two())
    assert len(scripted.times) == 3
    assert min(scripted.times[1:]) - scripted.times[0] >= 0.4


@pytest.mark.parametrize("status", [408, 409, 500, 503, 529])
def test_what_passes_is_tried_again(status: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("random.uniform", lambda low, high: 0.01)
    scripted = Failing(failing(status), failing(status))
    assert asyncio.run(complete(scripted)).is_whole
    assert len(scripted.times) == 3


def test_after_the_last_retry_the_run_stops_and_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("random.uniform", lambda low, high: 0.01)
    scripted = Failing(*[failing(503, {"message": "overloaded"})] * 3)
    with pytest.raises(GenerationStopped, match=r"3 attempts.*503 overloaded\. Run the same"):
        asyncio.run(complete(scripted, limits={"retries": 2}))


def test_nobody_at_the_address_is_said_as_that():
    async def ask_nobody() -> None:
        config = TeacherConfig.model_validate({"model": "m", "limits": {"retries": 0}})
        async with openai.AsyncOpenAI(
            base_url="http://127.0.0.1:9/v1",
            api_key="k",
            max_retries=0,
            http_client=openai.DefaultAioHttpClient(),
        ) as client:
            await Endpoint(client, config).complete(ask_of("answer", "Tell me", SAMPLING, 7))

    with pytest.raises(GenerationStopped, match=r"no connection \(Cannot connect to host"):
        asyncio.run(ask_nobody())


def test_an_answer_that_is_no_completion_is_asked_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("random.uniform", lambda low, high: 0.01)
    wrong = [Response("<html> down </html>"), JSONResponse({"choices": [{"message": "x"}]})]
    assert asyncio.run(complete(Failing(*wrong))).is_whole
    with pytest.raises(GenerationStopped, match="not a chat completion: '<html> down </html>'"):
        asyncio.run(complete(Failing(*wrong[:1]), limits={"retries": 0}))


def test_an_answer_that_trickles_is_given_up_when_its_time_is_over():
    async def trickle() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" "
            await asyncio.sleep(0.1)

    began = time.monotonic()
    with pytest.raises(GenerationStopped, match=r"no answer within limits\.timeout"):
        asyncio.run(
            complete(Failing(StreamingResponse(trickle())), limits={"retries": 0, "timeout": 0.5})
        )
    assert time.monotonic() - began < 3


def test_a_slow_answer_is_given_up_and_asked_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("random.uniform", lambda low, high: 0.01)
    scripted = ScriptedTeacher(latency=5)
    with pytest.raises(GenerationStopped, match=r"no answer within limits\.timeout"):
        asyncio.run(complete(scripted, limits={"retries": 1, "timeout": 0.2}))


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (401, {"message": "wrong key"}, "api_key_env"),
        (404, {"message": "no such model"}, r"teacher.base_url \(it ends in /v1\)"),
        (429, {"message": "all spent", "code": "insufficient_quota"}, "nothing left"),
    ],
)
def test_what_every_call_will_meet_stops_the_run_at_once(
    status: int, error: dict[str, Any], said: str
):
    scripted = Failing(*[failing(status, error)] * 3)
    with pytest.raises(GenerationStopped, match=said):
        asyncio.run(complete(scripted))
    assert len(scripted.times) == 1


def test_a_longer_wait_than_patience_stops_the_run():
    scripted = Failing(failing(429, retry_after="3600"))
    with pytest.raises(GenerationStopped, match=r"3600 seconds, longer than limits\.patience"):
        asyncio.run(complete(scripted))


def test_a_refused_question_is_an_answer_of_its_own():
    scripted = Failing(failing(400, {"message": "maximum context length is 8192 tokens"}))
    reply = asyncio.run(complete(scripted))
    assert reply.finish_reason == "refused"
    assert "context length" in reply.text


def test_an_endpoint_without_schemas_is_asked_without_and_said_so_once():
    scripted, said = ScriptedTeacher(schemas=False), []

    async def three() -> list[Reply]:
        async with asking(scripted, said.append) as endpoint:
            schema = {"type": "object"}
            return [
                await endpoint.complete(ask_of("j", f"Tell {n}", SAMPLING, n, schema=schema))
                for n in range(3)
            ]

    assert all(reply.is_whole for reply in asyncio.run(three()))
    assert sum(scripted.received.values()) == 4
    assert said == ["the endpoint does not enforce JSON schemas: answers are checked here alone"]


def test_an_endpoint_with_schemas_is_given_them():
    scripted = ScriptedTeacher()

    async def one() -> None:
        async with asking(scripted) as endpoint:
            await endpoint.complete(ask_of("j", "Tell", SAMPLING, 1, schema={"type": "object"}))

    asyncio.run(one())
    form = scripted.bodies[0]["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["schema"] == {"type": "object"}


def test_stopping_ends_a_wait():
    scripted = Failing(failing(429, retry_after="60"))

    async def stopped() -> float:
        async with asking(scripted) as endpoint:
            task = asyncio.create_task(endpoint.complete(ask_of("a", "one", SAMPLING, 1)))
            while not scripted.times:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            began = time.monotonic()
            endpoint.stop()
            with pytest.raises(GenerationStopped):
                await task
            return time.monotonic() - began

    assert asyncio.run(stopped()) < 1


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ("<think>hm</think>\n\nYes.", "Yes."),
        ("<think>never ending", ""),
        ("I <think> so", "I <think> so"),
        ("plain", "plain"),
    ],
)
def test_thoughts_are_no_part_of_an_answer(written: str, left: str):
    assert without_thoughts(written) == left


def test_thoughts_that_the_template_began_are_no_part_of_the_answer():
    assert without_thoughts("first this, {then} that</think>\n\nThe answer.") == "The answer."
    assert without_thoughts("The answer.") == "The answer."


@pytest.mark.parametrize(
    ("reason", "whole"),
    [("stop", True), ("eos", True), ("end_turn", True), ("length", False), ("refused", False)],
)
def test_an_answer_is_whole_unless_something_cut_it(reason: str, whole: bool):
    assert Reply("text", reason, 1, 1).is_whole is whole
