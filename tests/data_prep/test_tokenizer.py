"""Tokenizer folders: what is read from them, and which are refused."""

import string
from pathlib import Path

import pytest
import tokenizers
from tiny_tokenizer import SPECIAL, build_tokenizer
from tokenizers import models, processors

from data_prep.chat_templates import load_template
from data_prep.errors import DataError
from data_prep.rendering import Rendered, render
from data_prep.rows import Text
from data_prep.tokenizer import Tokenizer, load_tokenizer


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


def letters(folder: Path, letters: str) -> Tokenizer:
    """A tokenizer of a few letters and nothing else: no bytes, no unknown token."""
    backend = tokenizers.Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    backend.add_special_tokens(["<s>", "</s>", "<|im_start|>", "<|im_end|>"])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        special_tokens=[(token, backend.token_to_id(token)) for token in ("<s>", "</s>")],
    )
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}', encoding="utf-8")
    return load_tokenizer(folder)


def test_what_is_put_before_text_is_known_of_a_tokenizer_without_an_x(tmp_path):
    tokenizer = letters(tmp_path, "ab")
    assert tokenizer.decode(tokenizer.text_prefix_ids) == "<s>"


def test_text_for_which_there_is_no_token_is_refused(tmp_path):
    printable = letters(tmp_path, string.printable)
    assert printable.text_prefix_ids
    printable.backend.post_processor = processors.Sequence([])
    printable.backend.save(str(tmp_path / "tokenizer.json"))
    template = load_template("chatml", load_tokenizer(tmp_path))
    found, refused = render([Text("a"), Text("\u4f60")], template)
    assert isinstance(found, Rendered)
    assert str(refused) == "nothing supervised: the tokenizer makes no token of what it says"
