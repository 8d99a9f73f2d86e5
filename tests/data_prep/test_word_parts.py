"""Tokenizers of the SentencePiece family, word by word: the ids are the tokenizer's own."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_tokenizer import SENTENCES
from tokenizers import AddedToken, models, pre_tokenizers, trainers

from data_prep.word_cache import word_cache

MARK = "\u2581"
SPECIAL = ["<unk>", "<s>", "</s>", "<|end|>", "<|end|>>"]
METASPACE = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "first", "split": False}
PREPEND = {"type": "Prepend", "prepend": MARK}
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
GEMMA = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"}
KNOWN: dict[str, dict[str, Any]] = {
    "llama-2": {"normalizer": {"type": "Sequence", "normalizers": [PREPEND, REPLACE]}},
    "gemma": {"normalizer": REPLACE, "pre_tokenizer": GEMMA | {"invert": False}},
    "mistral": {"pre_tokenizer": METASPACE},
    "always": {"pre_tokenizer": METASPACE | {"prepend_scheme": "always"}},
    "never": {"pre_tokenizer": METASPACE | {"prepend_scheme": "never"}},
    "words": {"pre_tokenizer": METASPACE | {"split": True}},
    "phi-3": {
        "normalizer": {"type": "Sequence", "normalizers": [PREPEND, REPLACE]},
        "token": {"rstrip": True},
    },
    "no bytes": {"pre_tokenizer": METASPACE, "model": {"byte_fallback": False}},
}
UNKNOWN: dict[str, dict[str, Any]] = {
    "a token across words": {"merge": ("e", f"{MARK}a")},
    "a token of another mark": {"pre_tokenizer": METASPACE | {"replacement": "_"}},
    "put first after replacing": {
        "pre_tokenizer": None,
        "normalizer": {"type": "Sequence", "normalizers": [REPLACE, PREPEND]},
    },
    "composed": {"normalizer": {"type": "NFKC"}},
    "spaces stay": {"pre_tokenizer": None},
    "whole texts looked up": {"model": {"ignore_merges": True}},
    "dropout": {"model": {"dropout": 0.1}},
    "a token found after normalising": {"token": {"normalized": True}},
    "a token that takes what is before": {"token": {"lstrip": True}},
    "a token of whole words": {"token": {"single_word": True}},
    "a token with a mark": {"token": {"content": f"<{MARK}>"}},
    "a token that ends in white space": {"token": {"content": "<|end|> "}},
}


def build(path: Path, changes: dict[str, Any]) -> tokenizers.Tokenizer:
    """A tiny tokenizer as SentencePiece's become in transformers, with other settings."""
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(MARK)
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL[:3], show_progress=False)
    backend.train_from_iterator([*SENTENCES, "a   b  c", "a\n\nb"], trainer)
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL[3:]]
    )
    content = json.loads(backend.to_str())
    model = content["model"]
    for merge in ((MARK, MARK), (MARK * 2, MARK * 2), changes.get("merge")):
        if merge and "".join(merge) not in model["vocab"]:
            model["vocab"]["".join(merge)] = len(model["vocab"])
            model["merges"].append(list(merge))
    for byte in range(256):
        model["vocab"][f"<0x{byte:02X}>"] = len(model["vocab"])
    for place, token in enumerate(content["added_tokens"][3:]):
        token["id"] = len(model["vocab"]) + place
    model |= {"byte_fallback": True} | changes.get("model", {})
    content |= {"pre_tokenizer": METASPACE, "normalizer": None}
    if "normalizer" in changes:
        content["pre_tokenizer"] = None
    for part in ("normalizer", "pre_tokenizer"):
        content[part] = changes.get(part, content[part])
    content["added_tokens"][3] |= changes.get("token", {})
    path.write_text(json.dumps(content), encoding="utf-8")
    return tokenizers.Tokenizer.from_file(str(path))


@pytest.fixture(scope="module", params=KNOWN)
def backend(request, tmp_path_factory):
    return build(tmp_path_factory.mktemp("parts") / "t.json", KNOWN[request.param])


SIGNS = st.sampled_from(
    [
        *(*SPECIAL, " ", "  ", "    ", MARK, MARK * 2, "\n", "\n\n", "\t", "\u00a0", "\u2003"),
        *("\x1c", "\x85", "\u200b", "The", " dog", "9", "42", ".", ", ", "<0x0A>", "<", "|", "\0"),
        *("\u4f60\u597d", "\u0301", "e\u0301", "\U0001f98a", "\u0645"),
    ]
)
TEXTS = st.lists(SIGNS | st.text(max_size=4), max_size=14).map("".join)


@given(st.lists(TEXTS, max_size=4))
@example(["The dog  and   the dog", " The", "<s> The</s>", "<|end|> \n The<|end|>", MARK, "", " "])
@settings(max_examples=200)
def test_ids_are_the_tokenizers_own(backend, texts):
    cache = word_cache(backend)
    assert cache is not None
    own = [backend.encode(text, add_special_tokens=False).ids for text in texts]
    assert cache.encode(texts) == own
    assert cache.encode(texts) == own, "the second time, from memory"


def test_words_are_remembered(backend):
    """Otherwise nothing would be gained."""
    cache = word_cache(backend)
    cache.encode(["The quick brown fox and the dog", "the fox</s> and the dog"])
    words = {part for part in cache._known if isinstance(part, str)}
    assert {f"{MARK}{word}" for word in ("quick", "brown", "fox", "and", "the", "dog")} <= words


@pytest.mark.parametrize("name", UNKNOWN)
def test_tokenizers_that_may_join_words_are_left_alone(tmp_path, name):
    assert word_cache(build(tmp_path / "t.json", {})) is not None
    assert word_cache(build(tmp_path / "u.json", UNKNOWN[name])) is None
