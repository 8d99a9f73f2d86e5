"""Encoding word by word gives the ids that the tokenizer itself gives."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_tokenizer import SPECIAL, build_tokenizer

from data_prep import word_cache as module
from data_prep import word_parts
from data_prep.tokenizer import load_tokenizer
from data_prep.word_cache import word_cache

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT_2 = BYTES | {"use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}


def split(expression: str, **changes: Any) -> dict[str, Any]:
    step = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated"}
    return step | {"invert": False} | changes


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


KNOWN = {
    "gpt-2": GPT_2,
    "smollm": sequence(DIGITS, GPT_2),
    "digits together": sequence(DIGITS | {"individual_digits": False}, GPT_2),
    "llama-3": sequence(split(word_parts._LLAMA_3), BYTES),
    "qwen-2": sequence(split(word_parts._QWEN_2), BYTES),
    "qwen-3.5": sequence(split(word_parts._QWEN_3_5), BYTES),
    "tekken": sequence(split(word_parts._TEKKEN), BYTES),
    "gpt-4o": sequence(split(word_parts._GPT_4O), BYTES),
    "deepseek-3": sequence(
        *map(split, word_parts._WITHOUT_SPACES),
        split(word_parts._DEEPSEEK_3.replace(r"\r", "\r").replace(r"\n", "\n")),
        BYTES,
    ),
}
UNKNOWN = {
    "none": None,
    "words": {"type": "WhitespaceSplit"},
    "bytes alone": BYTES,
    "space put before": GPT_2 | {"add_prefix_space": True},
    "bytes first": sequence(BYTES, split(word_parts._LLAMA_3)),
    "another expression": sequence(split(r".{2}"), BYTES),
    "digits alone": sequence(split(word_parts._WITHOUT_SPACES[0]), BYTES),
    "cut out": sequence(split(word_parts._LLAMA_3, behavior="Removed"), BYTES),
    "inverted": sequence(split(word_parts._LLAMA_3, invert=True), BYTES),
    "metaspace": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always"},
}


MERGES = [
    *[("\u0120", "\u0120"), ("\u010a", "\u0120"), ("\u0120", "\u010a"), ("\u010a", "\u010a")],
    *[("\u0120\u0120", "\u0120"), (".", "\u010a"), ("!", "\u010a"), ("\u0120", "'"), ("4", "2")],
]
"""Runs of spaces (``\u0120`` in bytes' spelling) and line ends (``\u010a``), and the like."""


def changed(folder: Path, **settings: Any) -> tokenizers.Tokenizer:
    """The tiny tokenizer with other settings in its file."""
    path = build_tokenizer(folder) / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    model = content["model"]
    for first, second in MERGES:  # so that a piece cut in two would have other ids
        model["vocab"].setdefault(first + second, len(model["vocab"]))
        model["merges"].append([first, second])
    model |= settings.pop("model", {})
    for token in content["added_tokens"]:
        token |= settings.get("token", {}) if token["content"] == "<|end|>" else {}
    settings.pop("token", None)
    path.write_text(json.dumps(content | settings), encoding="utf-8")
    return load_tokenizer(path.parent).backend


@pytest.fixture(scope="module", params=KNOWN)
def backend(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("words") / "t"
    return changed(folder, pre_tokenizer=KNOWN[request.param])


def plainly(backend: tokenizers.Tokenizer, texts: list[str]) -> list[list[int]]:
    encodings = [backend.encode(text, add_special_tokens=False) for text in texts]
    return [encoding.ids for encoding in encodings]


SPACES = (" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u2003", "\u0085", "\x1c", "\u200b", "\ufeff")
WORDS = ("'s", "'", "The", " dog", "9", "42", ".", "!\n", "_", "\u00b2", "\u0301", "e\u0301", "\0")
OTHERS = ("\u4f60\u597d", "\u0645", "\U0001f98a", "<|im_", "end|>", "<")
SIGNS = st.sampled_from([*SPECIAL, *SPACES, *WORDS, *OTHERS])
TEXTS = st.lists(SIGNS | st.text(max_size=4), max_size=14).map("".join)


@given(st.lists(TEXTS, max_size=4))
@example(["The dog 's  \n x", "42 dogs. \n\n The", "", " ", "<unk> <s> <|end|> "])
@settings(max_examples=150)
def test_ids_are_the_tokenizers_own(backend, texts):
    cache = word_cache(backend)
    assert cache.encode(texts) == plainly(backend, texts)
    assert cache.encode(texts) == plainly(backend, texts), "the second time, from memory"


@given(TEXTS)
def test_ids_are_the_tokenizers_own_after_composing(tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp() / "composing"
    backend = changed(folder, normalizer={"type": "NFC"})
    assert word_cache(backend).encode([text]) == plainly(backend, [text])


@pytest.mark.parametrize("name", UNKNOWN)
def test_tokenizers_that_split_otherwise_are_left_alone(tmp_path, name):
    assert word_cache(changed(tmp_path / "t", pre_tokenizer=UNKNOWN[name])) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"normalizer": {"type": "NFKC"}},
        {"normalizer": {"type": "Prepend", "prepend": "\u2581"}},
        {"model": {"dropout": 0.1}},
        {"token": {"lstrip": True}},
        {"token": {"rstrip": True}},
        {"token": {"single_word": True}},
        {"token": {"content": "a b"}},
    ],
)
def test_tokenizers_whose_words_depend_on_others_are_left_alone(tmp_path, settings):
    assert word_cache(changed(tmp_path / "u")) is not None
    assert word_cache(changed(tmp_path / "t", **settings)) is None


def test_a_tokenizer_without_a_special_token_to_part_words_is_left_alone(tmp_path):
    bare = [t for t in SPECIAL if t == "<unk>"]
    folder = build_tokenizer(tmp_path / "t", bare, bos_token=None, eos_token=None)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["model"]["unk_token"] = "<unk>"
    path.write_text(json.dumps(content), encoding="utf-8")
    assert word_cache(load_tokenizer(folder).backend) is None


def test_memory_is_bounded_and_forgetting_changes_nothing(tokenizer, monkeypatch):
    monkeypatch.setattr(module, "MOST", 10)
    monkeypatch.setattr(module, "LONGEST", 6)
    monkeypatch.setattr(module, "AT_ONCE", 50)
    monkeypatch.setattr(module, "BLOCK", 3)
    cache = word_cache(tokenizer.backend)
    texts = [f"The dog {i} says something-very-long {i} times" for i in range(40)]
    for _ in range(2):
        assert cache.encode(texts) == plainly(tokenizer.backend, texts)
        assert len(cache._known) <= 10
        assert all(len(part) <= 6 for part in cache._known)


def test_remembered_words_do_not_travel_to_other_processes(tmp_path):
    tokenizer = load_tokenizer(build_tokenizer(tmp_path / "t"))
    before = len(pickle.dumps(tokenizer))
    expected = tokenizer.encode([f"word{i} dog" for i in range(1000)])
    assert len(pickle.dumps(tokenizer)) == before
    other = pickle.loads(pickle.dumps(tokenizer))
    assert other.encode([f"word{i} dog" for i in range(1000)]) == expected
