"""A sentence-embedding model behind the server, as `llmkit serve all-minilm-l6-v2` has it."""

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from numpy.typing import NDArray

from llmkit.models.embedding import load_embedder
from llmkit.serving import plain_model
from serve.process import ServerProcess
from serve.settings import ServeSettings

pytestmark = pytest.mark.end_to_end

MODEL = "all-minilm-l6-v2"
TEXTS = ["The cat sat on the mat.", "Paris is the capital of France.", "Où est la gare ?"]


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("embedding") / "server.log"
    with ServerProcess(plain_model(MODEL), log, ServeSettings()) as running:
        yield running


def ask(server: ServerProcess, path: str = "/v1/embeddings", **fields: Any) -> httpx.Response:
    return httpx.post(f"{server.root_url}{path}", json={"model": MODEL, **fields}, timeout=60)


def vectors(answer: httpx.Response) -> NDArray[np.float64]:
    assert answer.status_code == 200, answer.text
    return np.array([item["embedding"] for item in answer.json()["data"]])


def test_the_vectors_are_those_of_sentence_transformers(embedding: ServerProcess) -> None:
    together = vectors(ask(embedding, input=TEXTS))
    assert together.shape == (3, 384)
    expected = load_embedder(MODEL, device="cpu").embed(TEXTS)
    assert (together * expected).sum(1).min() > 0.999
    assert np.allclose(vectors(ask(embedding, input=TEXTS[1])), together[1], atol=1e-3)


def test_token_ids_are_embedded_as_their_text_and_counted(embedding: ServerProcess) -> None:
    text = ask(embedding, input=TEXTS[0])
    ids = ask(embedding, "/tokenize", prompt=TEXTS[0]).json()["tokens"]
    for given, copies in ((ids, 1), ([ids, ids], 2)):
        answer = ask(embedding, input=given)
        assert np.allclose(vectors(answer), vectors(text), atol=1e-3)
        usage = answer.json()["usage"]
        assert usage["prompt_tokens"] == usage["total_tokens"] == copies * len(ids)
    assert text.json()["usage"]["prompt_tokens"] == len(ids)
    metrics = httpx.get(f"{embedding.root_url}/metrics").text
    assert f'kind="prompt",model="{MODEL}",route="/v1/embeddings"' in metrics


def test_base64_and_openais_client_give_the_same_numbers(embedding: ServerProcess) -> None:
    plain = vectors(ask(embedding, input=TEXTS[0]))[0]
    written = ask(embedding, input=TEXTS[0], encoding_format="base64").json()["data"][0]
    assert np.array_equal(np.frombuffer(base64.b64decode(written["embedding"]), "<f4"), plain)
    client = openai.OpenAI(base_url=embedding.url, api_key="unused", max_retries=0)
    answer = client.embeddings.create(model=MODEL, input=TEXTS[0])  # which asks for base64
    assert np.array_equal(np.array(answer.data[0].embedding), plain)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"input": "word " * 300}, "context_length_exceeded"),
        ({"input": "word " * 5000}, "context_length_exceeded"),
        ({"input": ["x", "word " * 300]}, "context_length_exceeded"),
        ({"input": [5] * 300}, "context_length_exceeded"),
        ({"input": "x", "dimensions": 128}, "invalid_value"),
        ({"input": [30522]}, "invalid_value"),
    ],
)
def test_what_the_model_cannot_embed_is_refused(
    embedding: ServerProcess, fields: dict[str, Any], code: str
) -> None:
    answer = ask(embedding, **fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, code)
    assert ("dimensions" if "dimensions" in fields else "input") in error["message"]


def test_a_text_is_cut_where_the_request_says_so(embedding: ServerProcess) -> None:
    long = "word " * 300
    cut = ask(embedding, input=long, truncate_prompt_tokens=-1)
    assert cut.json()["usage"]["prompt_tokens"] == 256
    assert vectors(cut).shape == (1, 384)


def test_it_is_listed_and_writes_no_text(embedding: ServerProcess) -> None:
    (card,) = httpx.get(f"{embedding.url}/models").json()["data"]
    assert (card["id"], card["max_model_len"]) == (MODEL, 256)
    chat = {"messages": [{"role": "user", "content": "Hello"}]}
    asked = {"/v1/chat/completions": chat, "/v1/completions": {"prompt": "x"}}
    for path, fields in asked.items():
        answer = ask(embedding, path, **fields)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unsupported_route")
    described = httpx.get(f"{embedding.root_url}/openapi.json").json()["paths"]
    assert "/v1/embeddings" in described
    assert not asked.keys() & described.keys()
