"""Tokenizer folders: what is read from them, and which are refused."""

import pytest
from tiny_tokenizer import SPECIAL, build_tokenizer

from data_prep.errors import DataError
from data_prep.tokenizer import load_tokenizer


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", "{}", "not a tokenizer"),
        ("tokenizer_config.json", "{", "not JSON"),
        ("tokenizer_config.json", "[1]", "expected a JSON object"),
    ],
)
def test_a_broken_tokenizer_folder_is_refused(tmp_path, name, content, message):
    folder = build_tokenizer(tmp_path / "t")
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=rf"{name}: {message}"):
        load_tokenizer(folder)


def test_special_tokens_are_read_in_both_spellings(tokenizer):
    assert tokenizer.special == {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    assert {tokenizer.text_of(index) for index in tokenizer.special_ids} == set(SPECIAL)
    assert tokenizer.decode(tokenizer.text_prefix_ids) == "<s>"


def test_the_content_hash_follows_the_special_tokens(tmp_path, tokenizer):
    same = load_tokenizer(build_tokenizer(tmp_path / "same"))
    other = load_tokenizer(build_tokenizer(tmp_path / "other", eos_token="<|im_end|>"))
    assert same.content_hash == tokenizer.content_hash != other.content_hash
