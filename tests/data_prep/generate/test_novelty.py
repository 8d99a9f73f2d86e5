"""ROUGE-L novelty: the index says what comparing with every text says."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.generate.novelty import Nearest, NoveltyIndex, words_of

TEXTS = st.lists(
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=14).map(" ".join)
    | st.lists(st.sampled_from("abc"), min_size=60, max_size=140).map(" ".join),
    max_size=25,
)


def longest_common(one: list[str], other: list[str]) -> int:
    row = [0] * (len(other) + 1)
    for word in one:
        before = row
        row = [0]
        for place, also in enumerate(other):
            both = before[place] + 1 if word == also else max(before[place + 1], row[place])
            row.append(both)
    return row[-1]


def naive(texts: list[str], query: str, threshold: float) -> Nearest | None:
    best = None
    for number, text in enumerate(texts):
        one, other = words_of(query), words_of(text)
        score = 2 * longest_common(one, other) / (len(one) + len(other))
        if score >= threshold and (best is None or score > best.score):
            best = Nearest(number, score)
    return best


@given(TEXTS, st.sampled_from([0.05, 0.3, 0.7, 0.9, 1.0]))
@settings(deadline=None, max_examples=150)
def test_the_index_finds_what_comparing_with_every_text_finds(texts: list[str], threshold: float):
    index = NoveltyIndex(threshold)
    for number, text in enumerate(texts):
        assert index.nearest(text) == naive(texts[:number], text, threshold)
        index.add(text)
    assert len(index) == len(texts)


def test_a_score_at_the_threshold_is_not_new():
    index = NoveltyIndex(0.7)
    index.add("a b c d e f g h i j")
    assert index.nearest("a b c d e f g x y z") == Nearest(0, 0.7)
    assert index.nearest("a b c d e f w x y z") is None


def test_of_equal_texts_the_first_is_named():
    index = NoveltyIndex()
    for _ in range(3):
        index.add("tell me about the sea")
    assert index.nearest("Tell me about the sea!") == Nearest(0, 1.0)


def test_words_are_those_of_rouge_and_every_chinese_character():
    assert words_of("Don't re-write: 3.5 Über_all!") == [
        "don",
        "t",
        "re",
        "write",
        "3",
        "5",
        "über",
        "all",
    ]
    assert words_of("讲一个故事 now") == ["讲", "一", "个", "故", "事", "now"]


def test_texts_without_words_are_like_nothing():
    index = NoveltyIndex()
    index.add("...")
    index.add("")
    assert index.nearest("!!!") is None
    assert index.nearest("a word") is None


@pytest.mark.parametrize("threshold", [0, -1, 1.01])
def test_a_threshold_must_be_a_share(threshold: float):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        NoveltyIndex(threshold)
