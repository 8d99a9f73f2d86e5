"""The real engine on the real model: facts about one shared server."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from serve.process import ServerProcess

pytestmark = pytest.mark.end_to_end

QUESTION = "What is the capital of France?"


@pytest.fixture
def client(server: ServerProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key="unused", max_retries=0)


def test_chat_knows_the_capital_of_france(client: openai.OpenAI, server: ServerProcess) -> None:
    answer = client.chat.completions.create(
        model=server.model.name,
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        max_tokens=30,
    )
    assert "Paris" in (answer.choices[0].message.content or "")


def test_a_stream_comes_in_several_chunks(client: openai.OpenAI, server: ServerProcess) -> None:
    stream = client.chat.completions.create(
        model=server.model.name,
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        max_tokens=30,
        stream=True,
    )
    texts = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert sum(bool(text) for text in texts) > 3
    assert "Paris" in "".join(texts)


def test_text_is_completed(client: openai.OpenAI, server: ServerProcess) -> None:
    answer = client.completions.create(
        model=server.model.name, prompt="The capital of France is", temperature=0, max_tokens=5
    )
    assert "Paris" in answer.choices[0].text


def test_the_models_list_has_the_served_name_and_no_path(
    client: openai.OpenAI, server: ServerProcess
) -> None:
    assert [model.id for model in client.models.list()] == [server.model.name]
    assert client.models.retrieve(server.model.name).id == server.model.name
    for path in ("/v1/models", "/metrics"):
        assert str(server.model.path) not in httpx.get(server.root_url + path).text


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="other", prompt="x")


def test_the_metrics_are_vllms(server: ServerProcess) -> None:
    assert "vllm:request_success_total" in httpx.get(f"{server.root_url}/metrics").text


def test_only_the_allowed_routes_are_offered(server: ServerProcess) -> None:
    for path in ("/docs", "/version", "/load", "/v1/messages"):
        answer = httpx.get(server.root_url + path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")


def test_tokens_make_the_round_trip(server: ServerProcess) -> None:
    asked = {"model": server.model.name, "prompt": "Hello world", "add_special_tokens": False}
    tokens = httpx.post(f"{server.root_url}/tokenize", json=asked).json()["tokens"]
    asked = {"model": server.model.name, "tokens": tokens}
    answer = httpx.post(f"{server.root_url}/detokenize", json=asked).json()
    assert answer["prompt"] == "Hello world"


def test_a_conversation_goes_on_with_the_servers_own_answers(
    client: openai.OpenAI, server: ServerProcess
) -> None:
    said: list[Any] = [{"role": "user", "content": QUESTION}]
    for _ in range(2):
        answer = client.responses.create(
            model=server.model.name, input=said, temperature=0, max_output_tokens=30
        )
        assert answer.output_text
        said += [*answer.output, {"role": "user", "content": "Are you sure?"}]


def test_a_function_is_called_and_answered(client: openai.OpenAI, server: ServerProcess) -> None:
    tool: Any = {
        "type": "function",
        "name": "population",
        "description": "How many people live in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
        },
    }
    said: list[Any] = [{"role": "user", "content": "How many people live in Paris?"}]
    answer = client.responses.create(
        model=server.model.name,
        input=said,
        tools=[tool],
        tool_choice="required",
        temperature=0,
        max_output_tokens=100,
    )
    [call] = [item for item in answer.output if item.type == "function_call"]
    assert call.name == "population"
    assert set(json.loads(call.arguments)) == {"city"}
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "2,100,000"}
    answer = client.responses.create(
        model=server.model.name,
        input=[*said, *answer.output, result],
        tools=[tool],
        tool_choice="none",
        max_output_tokens=30,
    )
    assert answer.output_text


def test_seeds_hold_while_long_prompts_are_computed_in_parts(server: ServerProcess) -> None:
    """Together they are longer than what the engine computes in one step."""
    texts = [f"{number} " + "What follows is said again and again. " * 120 for number in range(6)]

    def answer(text: str) -> tuple[int, str]:
        asked = {"model": server.model.name, "prompt": text, "max_tokens": 4, "seed": 7}
        done = httpx.post(f"{server.url}/completions", json=asked, timeout=300)
        return done.status_code, done.json()["choices"][0]["text"]

    with ThreadPoolExecutor(len(texts)) as pool:
        together = list(pool.map(answer, texts))
    assert {status for status, _ in together} == {200}
    assert httpx.get(f"{server.root_url}/ready").status_code == 200
    alone = [answer(text) for text in texts]
    # A batch's size may decide between two near tokens, seldom.
    assert sum(a == b for a, b in zip(together, alone, strict=True)) >= len(texts) - 1
