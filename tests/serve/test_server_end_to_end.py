"""The real engine on the real model: facts about one shared server."""

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
