"""Shares of sources in what is trained on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import DataError
from data_prep.mixture import MixtureConfig, mix

COUNTS = st.lists(st.integers(0, 40), min_size=1, max_size=4)
BY = st.sampled_from(["rows", "tokens"])


def mixed_rows(counts, weights, seed=0, order=None, **settings):
    """Rows of as many sources; of source i each has i + 1 tokens."""
    source = np.repeat(np.arange(len(counts)), counts)
    keys = np.arange(1, len(source) + 1, dtype=np.uint64)
    if order is not None:
        source, keys = source[order], keys[order]
    rows = np.arange(len(source)) * 3
    found = mix(MixtureConfig(**settings), weights, rows, source, source + 1, keys, seed)
    return found, rows, source, keys


def amounts(rows, source, count, by) -> list[int]:
    sizes = source[rows // 3] + 1 if by == "tokens" else np.ones(len(rows))
    return np.bincount(source[rows // 3], sizes, count).astype(int).tolist()


@given(COUNTS, BY, st.data())
def test_every_source_has_its_share_up_to_one_row_and_no_row_is_lost_or_used_twice(
    counts, by, data
):
    weights = data.draw(st.lists(st.integers(1, 9), min_size=len(counts), max_size=len(counts)))
    found, rows, source, _ = mixed_rows(counts, weights, by=by)
    assert len(set(found.rows.tolist())) == len(found.rows)
    assert sorted([*found.rows.tolist(), *found.left_out.tolist()]) == rows.tolist()
    used = amounts(found.rows, source, len(counts), by)
    totals = amounts(rows, source, len(counts), by)
    present = [i for i, total in enumerate(totals) if total]
    if present:
        scale = min(totals[i] / weights[i] for i in present)
        for i in present:
            size = i + 1 if by == "tokens" else 1
            assert weights[i] * scale - size < used[i] <= max(weights[i] * scale + 1e-6, size)


@given(COUNTS, BY, st.data())
def test_with_repetition_every_row_is_used_and_shares_hold(counts, by, data):
    weights = data.draw(st.lists(st.integers(1, 9), min_size=len(counts), max_size=len(counts)))
    found, rows, source, _ = mixed_rows(counts, weights, by=by, until="all")
    assert set(found.rows.tolist()) == set(rows.tolist())
    assert not len(found.left_out)
    used = amounts(found.rows, source, len(counts), by)
    totals = amounts(rows, source, len(counts), by)
    present = [i for i, total in enumerate(totals) if total]
    if present:
        scale = max(totals[i] / weights[i] for i in present)
        for i in present:
            size = i + 1 if by == "tokens" else 1
            assert weights[i] * scale - size < used[i] <= weights[i] * scale + 1e-6
    times = np.unique(found.rows, return_counts=True)[1]
    for each in range(len(counts)):
        of_source = times[source == each]
        assert not len(of_source) or of_source.max() - of_source.min() <= 1


@given(st.randoms(), st.integers(0, 5))
def test_which_rows_are_taken_depends_on_what_they_say_and_not_on_their_order(random, seed):
    order = list(range(30))
    random.shuffle(order)
    one, _, _, keys = mixed_rows([20, 10], [1, 3], seed)
    other, _, _, shuffled = mixed_rows([20, 10], [1, 3], seed, np.array(order))
    taken = [set(k[f.rows // 3].tolist()) for k, f in ((keys, one), (shuffled, other))]
    assert taken[0] == taken[1]


def test_another_seed_takes_other_rows():
    first, second = (mixed_rows([100, 10], [1, 1], seed)[0].rows.tolist() for seed in (0, 1))
    assert first != second
    assert len(first) == len(second) > 10


@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.25, 0.25], [7, 7]])
def test_only_the_ratio_of_weights_matters(weights):
    assert mixed_rows([9, 3], weights, by="rows")[0].rows.tolist() == (
        mixed_rows([9, 3], [1, 1], by="rows")[0].rows.tolist()
    )


@pytest.mark.parametrize("until", ["first", "all"])
def test_weights_near_the_largest_float_are_weights_like_others(until):
    huge, _, _, _ = mixed_rows([9, 4], [1e308, 1e308], until=until)
    plain, _, _, _ = mixed_rows([9, 4], [1, 1], until=until)
    assert np.array_equal(huge.rows, plain.rows)


@pytest.mark.parametrize("weights", [[1e-9, 1], [1e-300, 1e300]])
def test_weights_that_would_repeat_rows_without_end_are_refused(weights):
    with pytest.raises(DataError, match="every row of source number 2 would be repeated more than"):
        mixed_rows([9, 4], weights, until="all")


@pytest.mark.parametrize("weights", [[1000, 1], [1e300, 1e-300]])
@pytest.mark.parametrize("by", ["rows", "tokens"])
def test_a_source_whose_share_is_less_than_a_row_is_not_left_out_in_silence(weights, by):
    found, _, source, _ = mixed_rows([9, 4], weights, by=by)
    assert amounts(found.rows, source, 2, "rows") == [9, 1]
