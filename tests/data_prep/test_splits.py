from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.rows import Completion, Conversation, Message
from data_prep.splits import find_leaks, group_rows, hold_out, prompt_hash

TEXT = st.sampled_from(["a", "b", "c", "d", "e", "f", " A ", "a  b", "A b", ""])
ROWS = st.builds(Completion, TEXT, TEXT) | st.builds(
    lambda q, a: Conversation((Message("user", q), Message("assistant", a))), TEXT, TEXT
)
LISTS = st.lists(ROWS, max_size=30)
SIZES = st.floats(0, 1, exclude_max=True) | st.integers(0, 40)
NO_PAIRS = np.empty((0, 2), np.int64)


def question(row: Conversation | Completion) -> str:
    asked = row.prompt if isinstance(row, Completion) else row.messages[0].content
    return " ".join(asked.lower().split())


def prompts(rows) -> np.ndarray:
    return np.array([prompt_hash(row) for row in rows], np.uint64)


def held(rows, size, seed=0, pairs=NO_PAIRS) -> list[bool]:
    hashes = prompts(rows)
    return hold_out(hashes, group_rows([hashes], pairs), size, seed).tolist()


@given(LISTS, SIZES, st.integers(0, 9))
def test_no_question_is_on_both_sides(rows, size, seed):
    out = held(rows, size, seed)
    sides = [
        {question(row) for row, is_out in zip(rows, out, strict=True) if is_out == side}
        for side in (True, False)
    ]
    assert not (sides[0] & sides[1]) - {""}


@given(LISTS, SIZES, st.integers(0, 9), st.randoms())
def test_the_split_does_not_depend_on_the_order_of_rows(rows, size, seed, random):
    order = list(range(len(rows)))
    random.shuffle(order)
    one, other = held(rows, size, seed), held([rows[i] for i in order], size, seed)
    assert [one[i] for i in order] == other


@given(LISTS, SIZES, st.integers(0, 9))
def test_no_more_is_held_out_than_wanted_unless_every_question_is_asked_more_often(
    rows, size, seed
):
    count = sum(held(rows, size, seed))
    wanted = round(size * len(rows)) if size < 1 else size
    if size and len(rows) > 1:
        wanted = max(1, wanted)
    if count > wanted:
        groups = Counter(prompts(rows).tolist())
        assert wanted
        assert count == min(groups.values()) > wanted


def test_different_questions_are_held_out_exactly_as_many_as_wanted():
    rows = [Completion(f"question {i}", "a") for i in range(100)]
    assert sum(held(rows, 0.1)) == 10
    assert sum(held(rows, 7)) == 7
    assert held(rows, 7, seed=0) != held(rows, 7, seed=1)


def test_one_question_asked_by_most_rows_does_not_take_them_all_out_of_training():
    rows = [Completion("the same", f"answer {i}") for i in range(900)]
    rows += [Completion(f"question {i}", "a") for i in range(900, 1000)]
    for seed in range(20):
        assert sum(held(rows, 0.05, seed)) == 50


def test_completions_without_a_prompt_are_told_apart_by_their_text():
    rows = [Completion("", f"page {i}") for i in range(10)]
    assert sum(held(rows, 3)) == 3


@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40), SIZES)
def test_rows_that_are_tied_together_go_to_the_same_side(pairs, size):
    rows = [Completion(f"question {i}", "a") for i in range(30)]
    tied = np.array(pairs, np.int64).reshape(-1, 2)
    out = held(rows, size, pairs=tied)
    assert all(out[a] == out[b] for a, b in pairs)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.integers(0, 3))
def test_groups_are_the_rows_with_an_equal_key_and_0_ties_nothing(keys, other):
    column, second = np.array(keys, np.uint64), np.full(len(keys), other, np.uint64)
    groups = group_rows([column, second], NO_PAIRS)
    for i, a in enumerate(keys):
        for j, b in enumerate(keys):
            assert (groups[i] == groups[j]) == (i == j or bool(other) or (a == b and a > 0))


@given(LISTS, LISTS)
def test_training_rows_whose_question_is_held_out_are_found_with_their_witness(rows, own):
    hashes = prompts([*rows, *own])
    train, held_out = np.arange(len(rows)), np.arange(len(rows), len(rows) + len(own))
    leaked, witness = find_leaks(hashes, train, held_out)
    for row, vouches in zip(leaked.tolist(), witness.tolist(), strict=True):
        assert hashes[row] == hashes[vouches]
        assert vouches >= len(rows)
    asked = set(hashes[held_out].tolist())
    assert leaked.tolist() == [i for i in train.tolist() if hashes[i].item() in asked]


@pytest.mark.parametrize("size", [0, 0.0])
def test_nothing_is_held_out_unasked(size):
    assert not any(held([Completion("a", "b"), Completion("c", "d")], size))
