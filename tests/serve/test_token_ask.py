"""Bounds on a request's tokens: the real count, tokenized, is between them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from serve.gateway.token_ask import estimate
from serve.keys.window import Ask

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"


def ask_of(route: str, body: dict[str, Any], longest: int) -> Ask:
    return estimate(route, body, longest).ask


def say(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


@given(st.text(max_size=300))
def test_a_text_has_no_more_tokens_than_bytes(text: str) -> None:
    letters = {letter: n for n, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    bytewise = Tokenizer(models.BPE(letters, []))  # no merges: the most tokens there can be
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    ask = ask_of(CHAT, say(text, max_tokens=7), 100_000)
    assert ask.most >= len(bytewise.encode(text).ids) + 7


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
)


@given(JSON_VALUES)
def test_a_tool_has_no_more_tokens_than_bytes_even_indented(schema: Any) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    written = json.dumps(tools, ensure_ascii=False, indent=4).encode("utf-8", "replace")
    ask = ask_of(CHAT, say("Hi", tools=tools, max_tokens=7), 1_000_000)
    assert ask.most >= len(written) + 7


def test_the_named_maximum_is_certain_for_each_answer() -> None:
    assert ask_of(CHAT, say("x" * 76, max_tokens=100), 2048).least == 10 + 100
    assert ask_of(CHAT, say("x" * 76, max_completion_tokens=100, n=3), 2048).least == 10 + 300


@pytest.mark.parametrize(("route", "answer"), [(CHAT, 10), (COMPLETIONS, 10), (EMBEDDINGS, 0)])
def test_a_prompt_is_no_longer_than_it_is_cut_to(route: str, answer: int) -> None:
    text = {"prompt": "x" * 20_000, "input": "x" * 20_000}
    body = say("x" * 20_000, truncate_prompt_tokens=50, max_tokens=10, **text)
    assert ask_of(route, body, 2048) == Ask(50 + answer, 50 + answer)
    several = body | {"prompt": ["x" * 20_000] * 3, "input": ["x" * 20_000] * 3}
    times = 1 if route == CHAT else 3
    assert ask_of(route, several, 2048) == Ask(times * (50 + answer), times * (50 + answer))
    assert ask_of(route, body | {"truncate_prompt_tokens": -1}, 2048).most == 2048 + answer


def test_without_a_maximum_an_answer_may_be_as_long_as_the_model_allows() -> None:
    ask = ask_of(CHAT, say("Hi"), 2048)
    assert ask.least == 1
    assert ask.most > 2048


def test_a_completion_without_a_maximum_is_sixteen_tokens() -> None:
    assert ask_of(COMPLETIONS, {"prompt": [1, 2, 3]}, 2048).least == 3 + 16


@pytest.mark.parametrize(
    ("prompt", "least"),
    [
        ("x" * 16, 2 + 5),
        (["x" * 16, "x" * 16], 4 + 10),
        ([1, 2, 3], 3 + 5),
        ([[1], [2, 3]], 3 + 10),
    ],
)
def test_every_prompt_of_a_list_gets_an_answer(prompt: Any, least: int) -> None:
    assert ask_of(COMPLETIONS, {"prompt": prompt, "max_tokens": 5}, 2048).least == least


def test_an_embedding_has_no_answer() -> None:
    assert ask_of(EMBEDDINGS, {"input": [1, 2, 3]}, 2048).least == 3


def test_a_route_without_tokens_asks_for_none() -> None:
    assert ask_of("/tokenize", {"prompt": "x" * 1000}, 2048) == Ask()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["messages", "prompt", "input", "n", "max_tokens", "content"]),
                inner,
            )
        ),
    )
)
def test_any_json_gets_an_answer(body: Any) -> None:
    for route in (CHAT, COMPLETIONS, "/v1/responses", EMBEDDINGS):
        ask = ask_of(route, body if isinstance(body, dict) else {"messages": body}, 64)
        assert 0 <= ask.least <= ask.most
