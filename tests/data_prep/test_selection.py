"""Choosing among rows: how many, which, and that their order does not matter."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from data_prep.errors import DataError
from data_prep.selection.choice import Candidates, text_hashes
from data_prep.selection.k_centre import KCentre, k_centre
from data_prep.selection.mmr import Mmr, mmr
from data_prep.selection.random_subset import RandomSubset, random_subset
from data_prep.selection.relevance import centrality, length_rank
from data_prep.selection.settings import SelectionConfig, compared
from data_prep.selection.top_tokens import TopTokens, top_tokens

RULES = [
    {"kind": "top_tokens"},
    {"kind": "random"},
    {"kind": "mmr"},
    {"kind": "mmr", "relevance": "length", "share": 0.8},
    {"kind": "k_centre"},
]
ADAPTER = TypeAdapter(SelectionConfig)


def unit(seed: int, rows: int, dimensions: int = 20):
    vectors = np.random.default_rng(seed).normal(size=(rows, dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def candidates(seed: int, rows: int) -> Candidates:
    tokens = np.random.default_rng(seed).permutation(rows) + 1
    texts = [f"row {seed} {row}" for row in range(rows)]
    return Candidates(text_hashes(texts), tokens, unit(seed, rows))


def reordered(rows: Candidates, order) -> Candidates:
    return Candidates(rows.hashes[order], rows.tokens[order], rows.vectors[order])


# What holds of every rule.


@pytest.mark.parametrize("rule", RULES)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 50))
@settings(max_examples=40)
def test_exactly_so_many_rows_stay_in_order_and_each_once(rule, seed, rows, count):
    choice = ADAPTER.validate_python(rule | {"count": count}).choose(candidates(seed, rows))
    kept = choice.kept.tolist()
    assert kept == sorted(set(kept))
    assert len(kept) == min(count, rows)
    assert set(kept) <= set(range(rows))
    assert bool(choice.note) == (count > rows)
    assert choice.reason.startswith("not among")


@pytest.mark.parametrize("rule", RULES)
@given(st.integers(0, 10**6), st.integers(3, 40), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_which_rows_stay_does_not_depend_on_their_order(rule, seed, rows, random):
    here = candidates(seed, rows)
    order = list(range(rows))
    random.shuffle(order)
    config = ADAPTER.validate_python(rule | {"count": rows // 2})
    there = config.choose(reordered(here, order))
    assert sorted(order[row] for row in there.kept) == config.choose(here).kept.tolist()


@pytest.mark.parametrize("rule", RULES)
def test_too_few_rows_all_stay_and_it_is_said(rule):
    choice = ADAPTER.validate_python(rule | {"count": 1000}).choose(candidates(0, 8))
    assert choice.kept.tolist() == list(range(8))
    assert choice.note == "1000 rows were asked for and there are 8: all of them stay."
    none = ADAPTER.validate_python(rule | {"count": 0.1}).choose(candidates(0, 0))
    assert len(none.kept) == 0


@pytest.mark.parametrize(("count", "rows", "kept"), [(0.25, 8, 2), (0.01, 8, 1), (0.99, 3, 3)])
def test_a_fraction_is_of_the_rows_there_are_and_at_least_one(count, rows, kept):
    assert len(TopTokens(count=count).choose(candidates(0, rows)).kept) == kept


@pytest.mark.parametrize("count", [0, -1, 0.0, 1.0, 1.5, -0.1, float("nan"), True, "5", None])
def test_a_count_that_is_neither_a_number_of_rows_nor_a_fraction_is_refused(count):
    with pytest.raises(ValidationError):
        ADAPTER.validate_python({"kind": "top_tokens", "count": count})


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "best"},
        {"kind": "random", "compare_random": True},
        {"kind": "mmr", "share": 1.1},
        {"kind": "mmr", "lambda": 0.5},
        {"kind": "k_centre", "seed": 1},
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(wrong | {"count": 5})


@pytest.mark.parametrize("config", [Mmr(count=2), KCentre(count=2)])
def test_rules_that_compare_rows_say_when_they_were_not_embedded(config):
    rows = candidates(0, 5)
    with pytest.raises(DataError, match=f"selection of kind {config.kind}: .*not embedded"):
        config.choose(Candidates(rows.hashes, rows.tokens))


@pytest.mark.parametrize("config", [Mmr(count=3), KCentre(count=3)])
def test_rows_that_the_model_cannot_read_are_left_to_the_last(config):
    rows = candidates(1, 6)
    rows.vectors[[0, 2, 4, 5]] = 0
    choice = config.choose(rows)
    assert choice.kept.tolist() == [0, 1, 3]
    assert choice.note == (
        "The embedding model cannot read 4 rows: they were left to the last, and the first 1 of "
        "them taken."
    )
    rows.vectors[:] = 0
    with pytest.raises(DataError, match="cannot read any of the 6 rows"):
        config.choose(rows)


# Most tokens.


def test_the_longest_rows_stay_and_of_equal_ones_the_earlier():
    tokens = np.array([5, 9, 7, 9, 7, 1])
    assert top_tokens(tokens, 2).tolist() == [1, 3]
    assert top_tokens(tokens, 3).tolist() == [1, 2, 3]
    choice = TopTokens(count=3).choose(Candidates(np.zeros(6, np.uint64), tokens))
    assert choice.reason == "not among the 3 rows with most tokens"


# At random.


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=20), st.data())
def test_equal_texts_are_chosen_alike_wherever_they_stand(texts, data):
    count = data.draw(st.integers(1, len(texts)))
    shuffled = data.draw(st.permutations(texts))
    one, other = (
        sorted(each[row] for row in random_subset(text_hashes(each), count, 7))
        for each in (texts, shuffled)
    )
    assert one == other


def test_another_seed_chooses_other_rows_and_every_row_has_its_chance():
    hashes = text_hashes(map(str, range(200)))
    chosen = [set(random_subset(hashes, 50, seed).tolist()) for seed in range(300)]
    assert len(set(map(frozenset, chosen))) == 300
    times = np.bincount([row for rows in chosen for row in rows], minlength=200)
    # 300 draws of a quarter: 75 on average, with a standard deviation of 7.5.
    assert times.min() > 40
    assert times.max() < 110


def test_a_choice_is_compared_with_as_many_rows_at_random():
    rows = candidates(3, 30)
    choice = TopTokens(count=10).choose(rows)
    beside = compared(rows, choice, seed=1)
    assert beside.kept.tolist() == RandomSubset(count=10, seed=1).choose(rows).kept.tolist()
    assert len(beside.kept) == 10


# Marginal relevance.


def by_definition(vectors, relevance, share, count):
    """Every row compared with every chosen one, in float64."""
    cosines = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    chosen = [int(np.argmax(relevance))]
    while len(chosen) < count:
        score = share * relevance - (1 - share) * cosines[:, chosen].max(axis=1)
        score[chosen] = -np.inf
        chosen.append(int(np.argmax(score)))
    return chosen


@given(st.integers(0, 10**6), st.integers(1, 60), st.floats(0, 1), st.data())
@settings(max_examples=80)
def test_looking_at_few_rows_chooses_as_looking_at_all(seed, rows, share, data):
    vectors = unit(seed, rows)
    relevance = np.random.default_rng(seed).uniform(-1, 1, rows)
    count = data.draw(st.integers(1, rows))
    assert mmr(vectors, relevance, share, count).tolist() == by_definition(
        vectors, relevance, share, count
    )


@given(st.lists(st.sampled_from([-0.5, 0.0, 0.3, 0.7]), min_size=1, max_size=30), st.data())
def test_relevance_alone_keeps_the_most_relevant_and_of_equal_ones_the_earlier(relevance, data):
    count = data.draw(st.integers(1, len(relevance)))
    chosen = mmr(unit(0, len(relevance)), np.array(relevance), 1.0, count)
    order = sorted(range(len(relevance)), key=lambda row: (-relevance[row], row))
    assert chosen.tolist() == order[:count]


def test_distance_keeps_copies_out_that_relevance_would_take():
    vectors = unit(5, 4)
    vectors = vectors[[0, 0, 0, 1, 2, 3]]
    relevance = np.array([0.9, 0.9, 0.9, 0.2, 0.2, 0.2])
    assert mmr(vectors, relevance, 1.0, 3).tolist() == [0, 1, 2]
    assert sorted(mmr(vectors, relevance, 0.3, 4).tolist()) == [0, 3, 4, 5]


def test_centrality_is_the_cosine_to_the_mean_and_length_is_a_rank():
    vectors = unit(2, 30, 19)
    mean = vectors.mean(axis=0)
    assert np.allclose(centrality(vectors), vectors @ mean / np.linalg.norm(mean), atol=1e-6)
    assert length_rank(np.array([3, 100000, 3, 7, 8])).tolist() == [0, 1, 0, 0.5, 0.75]


# k-centre.


def radius(vectors, chosen):
    cosines = np.clip(
        vectors.astype(np.float64) @ vectors[list(chosen)].astype(np.float64).T, -1, 1
    )
    return np.sqrt(np.maximum(0, 2 - 2 * cosines)).min(axis=1).max()


@given(st.integers(0, 10**6), st.integers(2, 9), st.data())
@settings(max_examples=60)
def test_no_row_is_more_than_twice_as_far_as_the_best_choice_allows(seed, rows, data):
    vectors = unit(seed, rows, 3)
    count = data.draw(st.integers(1, rows))
    best = min(radius(vectors, some) for some in combinations(range(rows), count))
    assert radius(vectors, k_centre(vectors, count)) <= 2 * best + 1e-3


def test_one_row_of_each_cluster_is_chosen_before_a_second_of_any():
    rng = np.random.default_rng(0)
    centres = unit(7, 10, 40)
    vectors = np.repeat(centres, 30, axis=0) + 0.01 * rng.normal(size=(300, 40))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    assert sorted(row // 30 for row in k_centre(vectors, 10)) == list(range(10))
