"""Fertility: what is a word, which tokens are its, and what is counted."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_tokenizer import SENTENCES

from data_prep.fertility import Fertility, _word, fertility, fertility_by
from data_prep.tokenizer import Tokenizer
from data_prep.tokenizer_training import TokenizerSettings, train_tokenizer

LEARNED = Tokenizer(
    None,  # type: ignore[arg-type]
    train_tokenizer(SENTENCES * 3, TokenizerSettings(vocab_size=500)),
    {},
    None,
)
BYTES = Tokenizer(
    None,  # type: ignore[arg-type]
    train_tokenizer(["a"], TokenizerSettings(vocab_size=259)),
    {},
    None,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Give three tips.", ["Give", "three", "tips"]),
        ("don't  e-mail_2\n", ["don", "t", "e", "mail_2"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("cafe\u0301 naïve Größe", ["cafe\u0301", "naïve", "Größe"]),
        ("東京は x12 東 สวัสดี ok", ["x12", "ok"]),
        (" ?! \u0301 ", []),
        ("ﾊﾟﾝ ab", ["ab"]),
    ],
)
def test_words_are_runs_of_letters_digits_and_marks_in_scripts_with_spaces(text, words):
    assert _word().findall(text) == words
    assert fertility(BYTES, [text]).words == len(words)


def test_a_tokenizer_of_bytes_costs_a_token_a_byte():
    text = "Größe, hm? 東京"
    found = fertility(BYTES, [text])
    assert found.tokens == found.bytes == len(text.encode())
    assert (found.words, found.word_tokens) == (2, len("Größe".encode()) + 2)
    assert found.tokens_per_word == 4.5
    assert found.bytes_per_token == 1
    assert found.characters_per_token == len(text) / found.tokens
    assert found.whole_words == 0


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("Größe, hm? 12!", 1.0),
        ("東京は ab、", 2 / 5),
        ("ab", 1.0),
        ("สวัสดี", 0.0),
        ("한국어 abc", 1.0),
        ("?! ,", None),
        ("", None),
    ],
)
def test_how_much_of_a_text_its_words_are_is_told(text, share):
    assert fertility(BYTES, [text]).covered_share == share


def test_words_that_are_one_token_with_their_space_are_whole():
    assert LEARNED.backend.encode("The dog").tokens == ["The", "Ġdog"]
    found = fertility(LEARNED, ["The dog"])
    assert (found.words, found.word_tokens, found.whole_words) == (2, 2, 2)
    assert found.whole_word_share == 1


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=5))
def test_the_counts_add_up_and_each_word_has_a_token(texts):
    whole = fertility(LEARNED, texts)
    assert whole == sum((fertility(LEARNED, [text]) for text in texts), Fertility())
    assert whole.bytes == sum(len(text.encode()) for text in texts)
    assert whole.tokens == sum(map(len, LEARNED.encode(texts)))
    slow = [token_count(text, span) for text in texts for span in spans(text)]
    assert (whole.words, whole.word_tokens) == (len(slow), sum(slow))
    assert whole.whole_words == slow.count(1)
    assert all(slow)


def spans(text):
    return [match.span() for match in _word().finditer(text)]


def token_count(text, span):
    """Tokens that overlap a word, counted one by one."""
    start, end = span
    offsets = LEARNED.backend.encode(text, add_special_tokens=False).offsets
    return sum(first < end and last > start for first, last in offsets)


def test_languages_are_counted_apart_and_sorted():
    found = fertility_by(LEARNED, [("es", "hola"), ("en", "the dog"), ("es", "que tal")])
    assert list(found) == ["en", "es"]
    assert found["es"] == fertility(LEARNED, ["hola", "que tal"])
    assert sum(found.values(), Fertility()) == fertility(LEARNED, ["hola", "the dog", "que tal"])


def test_nothing_has_no_figures_rather_than_wrong_ones():
    found = fertility(LEARNED, ["", ""])
    assert found.texts == 2
    figures = (found.tokens_per_word, found.whole_word_share, found.bytes_per_token)
    assert figures == (None, None, None)
    assert found.characters_per_token is None
    assert fertility(LEARNED, ["東京"]).tokens_per_word is None
    assert fertility(LEARNED, []).as_dict()["tokens"] == 0


def test_a_learned_vocabulary_costs_fewer_tokens_than_bytes():
    learned, plain = (fertility(each, SENTENCES) for each in (LEARNED, BYTES))
    assert learned.words == plain.words
    assert learned.tokens_per_word is not None
    assert plain.tokens_per_word is not None
    assert learned.tokens_per_word < plain.tokens_per_word
    assert math.isclose(learned.bytes_per_token * learned.tokens, plain.bytes)


def test_progress_is_told_of_every_text(monkeypatch):
    monkeypatch.setattr("data_prep.fertility.BATCH", 2)
    seen: list[int] = []
    fertility(LEARNED, ["a", "b", "c"], seen.append)
    assert seen == [2, 1]
