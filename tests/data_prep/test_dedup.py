"""Duplicates: what is found, what stays, and certificates that an audit can replay."""

import random
import re

import numpy as np
import pytest
from dedup_rows import deduplicated
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data_prep.dedup.certificates import Certificate, audit, words_in
from data_prep.dedup.deduplicate import DedupConfig
from data_prep.dedup.kernels import FIRST, hash_words, pairs_in_groups
from data_prep.dedup.minhash import MinHashConfig, alike_across, near_duplicates, sketch
from data_prep.dedup.stars import stars
from data_prep.dedup.words import Texts, TextsInMemory
from data_prep.rows import Completion, Conversation, Message, PlacedRow

ENDINGS = ("ab", "eck", "ill", "ong", "ust", "ane", "orm", "edge")
WORDS = [f"{a}{b}{c}" for a in "bcdfghklmn" for b in "aeio" for c in ENDINGS]


def sentences(seed: int, words: int = 60) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def placed(*texts: str) -> list[PlacedRow]:
    return [PlacedRow(f"r.jsonl:{i}", Completion("", text)) for i, text in enumerate(texts, 1)]


def found(texts: list[str], **settings: object) -> dict[int, Certificate]:
    config = DedupConfig(minhash=MinHashConfig.model_validate(settings))
    return deduplicated(placed(*texts), config)


def replayed(rows: list[PlacedRow], certificates: dict[int, Certificate]) -> list[str]:
    removed = [rows[index].where for index in certificates]
    return audit(
        certificates.values(),
        {row.where: row.row for row in rows},
        frozenset(row.where for row in rows) - set(removed),
        removed,
    )


# Words.


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
@settings(max_examples=400)
def test_words_are_those_that_the_audit_finds_with_a_regular_expression(text):
    texts = Texts.of([text])
    words, numeric = np.empty(texts.longest + 1, np.uint64), np.empty(texts.longest + 1, bool)
    count = hash_words(texts.bytes, 0, len(texts.bytes), words, numeric)
    independent = words_in(text)
    assert count == len(independent)
    ids: dict[int, str] = {}
    for value, word in zip(words[:count].tolist(), independent, strict=True):
        assert ids.setdefault(value, word) == word
    assert len(set(ids.values())) == len(ids)
    signs = re.compile("[0-9]|^[-%&*+/<=>^|~\u00b1\u00d7\u00f7\u2200-\u22ff]$")
    marks = [bool(signs.search(word)) for word in independent]
    assert numeric[:count].tolist() == marks


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't stop, e-mail ME.", ["don", "t", "stop", "e", "mail", "me"]),
        ("3 + 4 = 7; x-1 - y", ["3", "+", "4", "=", "7", "x", "-", "1", "-", "y"]),
        ("\ufb01ne \uff21\uff22\uff23 Straße", ["fine", "abc", "strasse"]),
        ("日本語 text", ["日本", "本語", "text"]),
        ("“quoted” — so", ["quoted", "so"]),
        ("٣ و ۴, ๕ या ६", ["3", "و", "4", "5", "या", "6"]),
        ("3\u00d74 ÷ 2 \u2212 1 ≤ √9", [*"3\u00d74÷2\u22121≤√9"]),
        ("- a list\n- with well-known signs", ["a", "list", "with", "well", "known", "signs"]),
    ],
)
def test_words_of_a_text(text, words):
    assert words_in(text) == words


# What is found.


def test_copies_are_found_however_they_differ_in_case_punctuation_and_order():
    text = sentences(0)
    half = text.split()
    texts = [text, text.upper(), ", ".join(half) + "!", " ".join(half[30:] + half[:30]), text]
    certificates = found([*texts, sentences(1)])
    assert {index: c.measure for index, c in certificates.items()} == {
        1: "same words",
        2: "same words",
        3: "jaccard",
        4: "equal",
    }
    assert {c.witness for c in certificates.values()} == {"r.jsonl:1"}


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_edited_copies_are_found_and_rows_of_one_vocabulary_are_not(share):
    rng = random.Random(5)
    texts = [sentences(seed) for seed in range(300)]
    edited = [
        " ".join(rng.choice(WORDS) if rng.random() < share else w for w in text.split())
        for text in texts[:100]
    ]
    certificates = found([*texts, *edited])
    assert set(certificates) == set(range(300, 400)) or {
        int(c.witness.partition(":")[2]) - 1 for c in certificates.values()
    } | set(certificates) == {*range(100), *range(300, 400)}
    assert len(certificates) == 100


def test_rows_that_differ_in_their_numbers_stay_unless_asked_to_merge():
    text = sentences(2) + " add {} and {} to {}"
    texts = [text.format(3, 4, 5), text.format(6, 4, 5), text.format(3, 4, "five")]
    assert [c.removed for c in found(texts).values()] == ["r.jsonl:3"]
    assert len(found(texts, numbers="merge")) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("7 - 3", "7 + 3"),
        ("a < b", "a > b"),
        ("7 \u2212 3", "7 + 3"),
        ("a ≤ b", "a ≥ b"),
        ("٣", "٤"),
    ],
)
def test_rows_that_differ_in_an_operator_stay(one, other):
    text = sentences(3)
    assert not found([f"{text} {one}", f"{text} {other}"])
    assert found([f"{text} {one}", f"{text} {one}."])


@pytest.mark.parametrize(
    ("one", "other", "removed"),
    [
        ("divide 10 by 5", "divide 5 by 10", 0),
        ("add -5 to 7", "add 5 to 7", 0),
        ("add 5 to 7", "add -5 to 7", 0),
        ("the mean of 2, 4, 6", "the mean of 2, 4, 6, 6", 0),
        ("the mean of 2, 4, 6", "the mean of 2, 4", 0),
        ("3.5 metres", "5.3 metres", 0),
        ("on 2024-01-02", "on 2024-02-01", 0),
        ("the 3 foxes", "the foxes", 1),
        ("rename x1 to y2 in 3 files", "rename x1 in 3 files", 1),
        ("an mp3 and an mp4 of 5 minutes", "an mp4 and an mp3 of 5 minutes", 1),
        ("the 1st and the 2nd", "the 2nd and the 1st", 0),
        ("divide 10 by 5", "please divide 10 by 5", 1),
        ("with **bold** words 3", "with bold words 3", 1),
    ],
)
def test_rows_that_are_the_same_but_for_their_figures_stay(one, other, removed):
    text = sentences(3)
    rows = placed(f"{text} {one}", f"{text} {other}")
    certificates = deduplicated(rows, DedupConfig(minhash=MinHashConfig()))
    assert len(certificates) == removed
    assert replayed(rows, certificates) == []
    merged = deduplicated(rows, DedupConfig(minhash=MinHashConfig(numbers="merge")))
    (certificate,) = merged.values()
    assert replayed(rows, merged) == []
    lying = {index: c.model_copy(update={"numbers": "distinct"}) for index, c in merged.items()}
    assert bool(replayed(rows, lying)) == (not removed), certificate


@pytest.mark.parametrize(("on", "expected"), [("prompt", [1, 2]), ("response", [1]), ("both", [1])])
def test_prompts_responses_or_both_are_compared(on, expected):
    question, answer, other = sentences(4), sentences(5), sentences(6)

    def row(asked: str, said: str) -> Conversation:
        return Conversation((Message("user", asked), Message("assistant", said)))

    rows = [row(question, answer), row(question.upper(), answer), row(question, other)]
    certificates = deduplicated(
        [PlacedRow(str(i), r) for i, r in enumerate(rows)],
        DedupConfig(exact=False, minhash=MinHashConfig(on=on)),
    )
    assert list(certificates) == expected


def test_without_a_setting_only_equal_rows_are_removed():
    text = sentences(7)
    rows = placed(text, text, text.upper())
    assert list(deduplicated(rows, DedupConfig())) == [1]
    assert not deduplicated(rows, DedupConfig(exact=False))


def test_rows_with_the_same_words_can_be_removed_without_looking_for_near_duplicates():
    text = sentences(7)
    rows = placed(text, text.upper() + "!", text, f"{text} more", "!", "?")
    certificates = deduplicated(rows, DedupConfig(same_words=True))
    assert {index: c.measure for index, c in certificates.items()} == {1: "same words", 2: "equal"}
    assert replayed(rows, certificates) == []


def test_texts_without_words_are_nobodys_duplicates():
    assert not found(["", "!!!", "...", "?"])
    assert list(found(["", "", "!"])) == [1]


def test_many_copies_of_one_row_leave_exactly_one():
    text = sentences(8)
    rng = random.Random(0)
    texts = [
        " ".join(rng.choice(WORDS) if rng.random() < 0.02 else w for w in text.split())
        for _ in range(500)
    ]
    assert len(found(texts)) == 499


def test_the_result_is_the_same_for_every_run_and_grows_with_neither_threads_nor_time():
    texts = [sentences(seed % 40, 30) + f" {'x' * (seed % 3)}" for seed in range(200)]
    assert found(texts) == found(texts)


@pytest.mark.parametrize(
    "wrong", [{"threshold": 0}, {"threshold": 1.1}, {"bands": 0}, {"on": "all"}, {"treshold": 0.5}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        MinHashConfig.model_validate(wrong)


def test_runs_of_words_can_be_compared_instead_of_words():
    words = sentences(9).split()
    shuffled = " ".join(random.Random(1).sample(words, len(words)))
    assert found([" ".join(words), shuffled])
    assert not found([" ".join(words), shuffled], ngram=3)


# Stars.


def graph(count: int) -> st.SearchStrategy[list[tuple[int, int, float]]]:
    ends = st.integers(0, count - 1)
    pair = st.tuples(ends, ends).filter(lambda p: p[0] < p[1])
    score = st.sampled_from([0.6, 0.7, 0.9])
    return st.dictionaries(pair, score, max_size=60).map(
        lambda edges: [(a, b, s) for (a, b), s in edges.items()]
    )


@given(graph(12))
def test_every_removed_row_is_like_a_row_that_stays_and_no_two_that_stay_are_alike(edges):
    left, right, scores = (
        (np.array(column) for column in zip(*edges, strict=True))
        if edges
        else (
            np.empty(0, int),
            np.empty(0, int),
            np.empty(0),
        )
    )
    result = stars(12, left, right, scores)
    score = {(a, b): s for a, b, s in edges} | {(b, a): s for a, b, s in edges}
    removed = set(result.removed.tolist())
    for row, witness, similarity in zip(
        result.removed.tolist(), result.witness.tolist(), result.similarity.tolist(), strict=True
    ):
        assert witness not in removed
        assert score[row, witness] == similarity
        kept_neighbours = [b for a, b in score if a == row and b not in removed]
        assert similarity == max(score[row, other] for other in kept_neighbours)
    assert not [pair for pair in score if not set(pair) & removed]


def test_a_chain_is_not_removed_as_one():
    result = stars(5, np.array([0, 1, 2, 3]), np.array([1, 2, 3, 4]), np.full(4, 0.7))
    assert result.removed.tolist() == [0, 2, 4]
    assert result.witness.tolist() == [1, 1, 3]


# Certificates.


@given(st.lists(st.sampled_from([sentences(i, 12) for i in range(4)]), max_size=8), st.data())
@settings(max_examples=60)
def test_every_certificate_holds(texts, data):
    changed = [
        data.draw(st.sampled_from([text, text.title(), text + ".", text + " more", text[5:]]))
        for text in texts
    ]
    rows = placed(*changed)
    certificates = deduplicated(rows, DedupConfig(minhash=MinHashConfig()))
    assert replayed(rows, certificates) == []


TEXT = sentences(10)
ROWS = placed(TEXT, TEXT, TEXT.upper(), TEXT + " more words here", sentences(11), TEXT + " 5")


@pytest.mark.parametrize(
    ("index", "change", "problem"),
    [
        (1, {"witness": "r.jsonl:5"}, "is not equal to its witness"),
        (1, {"witness": "r.jsonl:3"}, "its witness r.jsonl:3 did not stay"),
        (2, {"witness": "r.jsonl:5"}, "has not the same words"),
        (3, {"similarity": 0.99}, r"certified 0.990000 similar, counted 0\.9"),
        (3, {"threshold": 0.999}, "below the threshold"),
        (3, {"witness": "r.jsonl:9"}, "did not stay"),
        (3, {"removed": "r.jsonl:5"}, "is still there"),
    ],
)
def test_a_planted_bad_certificate_fails_the_audit(index, change, problem):
    certificates = deduplicated(ROWS, DedupConfig(minhash=MinHashConfig()))
    assert replayed(ROWS, certificates) == []
    certificates[index] = certificates[index].model_copy(update=change)
    assert re.search(problem, "\n".join(replayed(ROWS, certificates)))


def test_a_removed_row_without_a_certificate_fails_the_audit():
    certificates = deduplicated(ROWS, DedupConfig(minhash=MinHashConfig()))
    rows = {row.where: row.row for row in ROWS}
    kept = frozenset({"r.jsonl:1", "r.jsonl:5"})
    removed = [c.removed for c in certificates.values()]
    missing = list(certificates.values())[1:]
    assert audit(missing, rows, kept, removed) == ["r.jsonl:2: is not certified"]


def test_a_certificate_over_different_numbers_fails_the_audit():
    text = sentences(12)
    rows = placed(f"{text} 5", f"{text} 6")
    (certificate,) = found([f"{text} 5", f"{text} 6"], numbers="merge").values()
    lying = certificate.model_copy(update={"numbers": "distinct"})
    assert replayed(rows, {1: certificate}) == []
    assert "differs from its witness in its numbers" in replayed(rows, {1: lying})[0]


def test_pairs_are_counted_exactly_as_set_similarity():
    texts = [sentences(seed // 3, 40) + f" {WORDS[seed]} {WORDS[seed + 1]}" for seed in range(60)]
    config, chosen = MinHashConfig(threshold=0.3, numbers="merge"), np.arange(len(texts))
    source = TextsInMemory(texts)
    edges = near_duplicates(source, sketch(source, config, chosen), config, chosen)
    sets = [set(text.split()) for text in texts]
    assert len(edges.left) >= 60
    for a, b, similarity in zip(edges.left, edges.right, edges.similarity, strict=True):
        assert similarity == len(sets[a] & sets[b]) / len(sets[a] | sets[b])


def test_rows_without_words_are_nobodys_duplicates_in_whatever_part_they_come():
    """A shard numbers its rows from 0; rows of two shards must not share a hash by that."""

    class TwoParts(TextsInMemory):
        def chunks(self):
            yield 0, Texts.of(["!!!"])
            yield 1, Texts.of(["???"])

    source = TwoParts(["!!!", "???"])
    sequences = sketch(source, MinHashConfig(), np.arange(2)).sequences
    assert sequences[0] != sequences[1]


@pytest.mark.parametrize("size", [1, 7, 100])
def test_parts_of_any_size_give_the_same_pairs(size, monkeypatch):
    texts = [sentences(seed // 3, 40) + f" {WORDS[seed]}" for seed in range(60)]
    config, chosen = MinHashConfig(), np.arange(5, 60)

    class InParts(TextsInMemory):
        def chunks(self):
            for start in range(0, len(texts), size):
                yield start, Texts.of(texts[start : start + size])

    whole, parts = TextsInMemory(texts), InParts(texts)
    one = near_duplicates(whole, sketch(whole, config, chosen), config, chosen)
    monkeypatch.setattr("data_prep.dedup.minhash.PAIRS", size)
    other = near_duplicates(parts, sketch(parts, config, chosen), config, chosen)
    assert len(one.left) >= 50
    for name in ("left", "right", "similarity"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist()


@pytest.mark.parametrize(("min_words", "removed"), [(12, []), (0, [1])])
def test_short_rows_of_one_set_of_words_are_two_requests(min_words, removed):
    texts = ["Sort these from smallest to largest.", "Sort these from largest to smallest."]
    assert list(found(texts, min_words=min_words)) == removed


@pytest.mark.parametrize("size", [1, 2, 31, 32, 33, 34, 100])
def test_of_a_group_each_text_is_paired_with_the_first_ones_and_its_neighbour(size):
    ordered = np.arange(size, dtype=np.uint64) | np.uint64(7 << 32)
    expected = {
        (earlier, later)
        for later in range(size)
        for earlier in range(later)
        if earlier < FIRST or later - earlier == 1
    }
    pairs = np.empty(len(expected), np.uint64)
    assert pairs_in_groups(ordered, np.zeros(size, np.uint64), pairs) == len(expected)
    assert {(int(p) >> 32, int(p) & 0xFFFFFFFF) for p in pairs} == expected


def test_pairs_that_their_numbers_tell_apart_are_no_candidates():
    ordered = np.arange(3, dtype=np.uint64) | np.uint64(7 << 32)
    figures = np.array([0b011, 0b110, 0b111], np.uint64)
    pairs = np.zeros(3, np.uint64)
    assert pairs_in_groups(ordered, figures, pairs) == 2
    assert [(int(p) >> 32, int(p) & 0xFFFFFFFF) for p in pairs[:2]] == [(0, 2), (1, 2)]


def test_texts_of_a_large_group_that_have_the_same_numbers_are_paired():
    ordered = np.arange(120, dtype=np.uint64) | np.uint64(7 << 32)
    figures = np.array([1 << (text % 60) for text in range(120)], np.uint64)
    pairs = np.zeros(200, np.uint64)
    count = pairs_in_groups(ordered, figures, pairs)
    found = {(int(p) >> 32, int(p) & 0xFFFFFFFF) for p in pairs[:count]}
    assert found == {(text, text + 60) for text in range(60)}
    assert count == 60


def test_each_row_on_the_left_is_found_though_many_are_alike():
    """What is held out may be like a thousand rows: every one of them must be known."""
    text, rng = sentences(21), random.Random(0)
    texts = [
        " ".join(rng.choice(WORDS) if rng.random() < 0.03 else w for w in text.split())
        for _ in range(300)
    ]
    source, config = TextsInMemory(texts), MinHashConfig()
    left, right = np.arange(299), np.array([299])
    edges = alike_across(source, sketch(source, config, np.arange(300)), config, left, right)
    assert edges.left.tolist() == list(range(299))
    assert set(edges.right.tolist()) == {299}


@pytest.mark.parametrize("seed", range(3))
def test_pairs_across_are_those_of_all_pairs_that_cross(seed):
    rng = random.Random(seed)
    texts = [f"{sentences(rng.randrange(9), 30)} {rng.choice(WORDS)} 5" for _ in range(60)]
    source, config, chosen = TextsInMemory(texts), MinHashConfig(), np.arange(60)
    sketches = sketch(source, config, chosen)
    every = near_duplicates(source, sketches, config, chosen)
    border = 40
    crossing = (every.left < border) & (every.right >= border)
    some = alike_across(source, sketches, config, chosen[:border], chosen[border:])
    assert some.left.tolist() == every.left[crossing].tolist()
    assert some.right.tolist() == every.right[crossing].tolist()
