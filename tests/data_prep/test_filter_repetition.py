"""Repetition: Gopher's measures against plain ones, and what short texts are spared."""

import math
from collections import Counter

import pytest
from chat_rows import conversation
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from data_prep.filters.candidate import Candidate
from data_prep.filters.repetition import RepetitionFilter, _numbered
from data_prep.filters.repetition_kernels import repeated_characters, top_characters
from data_prep.rows import Completion


def judge(text: str, **settings: object):
    made = RepetitionFilter(kind="repetition", **settings)
    return made.judge(Candidate(Completion("", text), 9))


def plain_repeated(words: list[str], n: int) -> int:
    """Characters of words inside n-grams that stood before, by sets and slices."""
    seen: set[tuple[str, ...]] = set()
    inside: set[int] = set()
    for start in range(len(words) - n + 1):
        gram = tuple(words[start : start + n])
        if gram in seen:
            inside |= set(range(start, start + n))
        seen.add(gram)
    return sum(len(words[i]) for i in inside)


def plain_top(words: list[str], n: int) -> tuple[int, int]:
    """Times and characters of the most frequent n-gram, by counting."""
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    best = (0, 0)
    for gram, times in Counter(grams).items():
        inside = {k for i, g in enumerate(grams) if g == gram for k in range(i, i + n)}
        if times > 1:
            best = max(best, (times, sum(len(words[i]) for i in inside)))
    return best


@given(st.lists(st.sampled_from(["a", "bb", "ccc", "dddd"]), max_size=60), st.integers(1, 10))
def test_ngrams_are_counted_as_a_plain_count_does(words, n):
    ids, sizes = _numbered(words)
    assert repeated_characters(ids, sizes, n) == plain_repeated(words, n)
    assert top_characters(ids, sizes, n) == plain_top(words, n)


DISTINCT = " ".join(f"word{i}" for i in range(200))


def test_a_text_that_repeats_nothing_stays():
    assert judge(DISTINCT) is True


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (DISTINCT + "\n" + "\n".join(["one more line"] * 40), "repeated lines"),
        (f"{DISTINCT}\na b c\n" + "d\n" * 30 + DISTINCT, "repeated lines"),
        (DISTINCT + " " + " ".join(f"over again {i}" for i in range(60)), "the top 2-gram"),
        (DISTINCT + " " + " ".join(f"on and so {i}" for i in range(70)), "the top 3-gram"),
        (f"{DISTINCT} {' '.join(DISTINCT.split()[:40])}", "repeated 5-grams"),
    ],
)
def test_each_rule_drops_its_kind_of_repetition(text, rule):
    verdict = judge(text)
    assert verdict is not True
    assert rule in verdict[1]
    assert "max=" in verdict[1]


def test_paragraphs_are_parted_by_empty_lines():
    text = "\n \n".join([*DISTINCT.split(), *["once more"] * 90])
    assert "repeated paragraphs" in judge(text, lines=1, line_characters=1)[1]


def test_a_limit_of_one_never_drops():
    off = {"lines": 1, "line_characters": 1, "paragraphs": 1, "paragraph_characters": 1}
    off |= {"top_ngrams": (1, 1, 1), "repeated_ngrams": (1,) * 6}
    assert judge("again and again " * 100) is not True
    assert judge("again and again\n\n" * 100, **off) is True


@pytest.mark.parametrize("wrong", [-1, 20, math.nan])
@pytest.mark.parametrize(("rule", "count"), [("lines", 0), ("top_ngrams", 3)])
def test_a_limit_that_is_no_share_is_refused(rule, count, wrong):
    limit = (0.2,) * (count - 1) + (wrong,) if count else wrong
    with pytest.raises(ValidationError, match="than or equal to"):
        judge("", **{rule: limit})


@pytest.mark.parametrize(
    "text",
    [
        "No. No. No. No. No.",
        "He joined college, he got his driving license, he got a job.",
        "The sea is to fish as the sky is to birds.",
        "1. Row, row, row your boat\n2. Gently down the stream\n3. Row, row, row your boat",
    ],
)
def test_short_texts_with_some_repetition_stay(text):
    assert judge(text) is True


def test_short_texts_that_are_mostly_repetition_go():
    verdict = judge("I love you so much. " * 12)
    assert verdict is not True
    assert "max=50%" in verdict[1]
    assert judge("ha ha ha ha ha ha ha ha ha ha ha ha") is not True


def test_from_the_setting_on_a_text_is_not_short():
    text = f"{DISTINCT} {' '.join(DISTINCT.split()[:60])}"
    assert judge(text) is not True
    assert judge(text, short=261) is True


def test_an_answer_said_anew_is_no_repetition_and_one_that_repeats_itself_is():
    again = Candidate(conversation("Why?", DISTINCT, "Shorter!", DISTINCT[:900]), 9)
    assert RepetitionFilter(kind="repetition").judge(again) is True
    assert RepetitionFilter(kind="repetition", on="both").judge(again) is True
    stuck = Candidate(conversation("Why?", DISTINCT, "Shorter!", "I love you so much. " * 12), 9)
    assert RepetitionFilter(kind="repetition").judge(stuck) is not True
    assert RepetitionFilter(kind="repetition", on="prompt").judge(stuck) is True


def test_lines_that_say_nothing_do_not_count():
    lines = [f"call number {i}\n}}\n---\n" for i in range(60)]
    assert judge("".join(lines), top_ngrams=(1, 1, 1), repeated_ngrams=(1,) * 6) is True


def spread(first: str, characters: int, phrase: int) -> str:
    """A phrase four times, with as many characters between, none of them twice."""
    letters = [chr(ord(first) + i) for i in range(characters)]
    told, rest = letters[:phrase], letters[phrase:]
    return "".join("".join(told + rest[i * phrase : (i + 1) * phrase]) for i in range(4))


@pytest.mark.parametrize(
    ("first", "phrase", "stays"),
    [("\u4e00", 9, True), ("\u4e00", 10, False), ("\u1780", 19, True), ("\u1780", 20, False)],
)
def test_two_chinese_characters_are_a_word_and_four_khmer_ones(first, phrase, stays):
    """Five words that are said again count as repetition, four do not."""
    text = spread(first, 5 * phrase, phrase)
    assert (judge(text, short=0, top_ngrams=(1, 1, 1)) is True) == stays


def test_a_chinese_sentence_said_again_and_again_goes():
    assert judge("今天天气很好\uff0c我们去公园玩。" * 20) is not True
