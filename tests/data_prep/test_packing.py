from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.packing import Pack, RowTooLong, efficiency, pack

CAPACITY = st.integers(1, 200)


@st.composite
def rows_and_capacity(draw: st.DrawFn) -> tuple[list[int], int]:
    capacity = draw(CAPACITY)
    return draw(st.lists(st.integers(1, capacity), max_size=80)), capacity


def naive_best_fit_decreasing(lengths: list[int], capacity: int) -> list[int]:
    """Tokens in each pack, by looking at every pack for every row."""
    packs: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [i for i, tokens in enumerate(packs) if tokens + length <= capacity]
        if fitting:
            packs[max(fitting, key=lambda i: packs[i])] += length
        else:
            packs.append(length)
    return packs


def fewest_packs(lengths: list[int], capacity: int) -> int:
    """The optimum, by trying everything."""
    best = len(lengths)

    def place(index: int, packs: list[int]) -> None:
        nonlocal best
        if len(packs) >= best:
            return
        if index == len(lengths):
            best = len(packs)
            return
        for i in range(len(packs)):
            if packs[i] + lengths[index] <= capacity:
                place(index + 1, [*packs[:i], packs[i] + lengths[index], *packs[i + 1 :]])
        place(index + 1, [*packs, lengths[index]])

    place(0, [])
    return best


@given(rows_and_capacity())
def test_every_row_is_in_exactly_one_pack_and_no_pack_overflows(case: tuple[list[int], int]):
    lengths, capacity = case
    packs = pack(lengths, capacity)
    assert sorted(row for p in packs for row in p.rows) == list(range(len(lengths)))
    for p in packs:
        assert p.rows
        assert p.tokens == sum(lengths[row] for row in p.rows) <= capacity


@given(rows_and_capacity())
def test_packs_are_filled_as_naive_best_fit_decreasing_fills_them(case: tuple[list[int], int]):
    lengths, capacity = case
    found = sorted(p.tokens for p in pack(lengths, capacity))
    assert found == sorted(naive_best_fit_decreasing(lengths, capacity))


@given(rows_and_capacity())
def test_no_two_packs_could_have_been_one(case: tuple[list[int], int]):
    """So there are fewer than twice as many packs as the tokens need, plus one."""
    lengths, capacity = case
    packs = pack(lengths, capacity)
    assert all(a.tokens + b.tokens > capacity for a, b in combinations(packs, 2))


@given(st.lists(st.integers(1, 12), max_size=7))
def test_few_rows_need_at_most_eleven_ninths_of_the_fewest_packs(lengths: list[int]):
    # Johnson (1973): BFD <= 11/9 OPT + 4; for so few rows the additive part is below one.
    assert len(pack(lengths, 12)) <= 11 / 9 * fewest_packs(lengths, 12) + 1


@given(rows_and_capacity(), st.randoms())
def test_packing_is_repeatable_and_does_not_depend_on_the_order_of_rows(case, random):
    lengths, capacity = case
    assert pack(lengths, capacity) == pack(list(lengths), capacity)
    shuffled = list(lengths)
    random.shuffle(shuffled)
    one, other = ([[r[i] for i in p.rows] for p in pack(r, capacity)] for r in (lengths, shuffled))
    assert one == other


@pytest.mark.parametrize("length", [0, -1, 9, 10**6])
def test_a_row_that_no_pack_holds_is_refused_with_its_index(length: int):
    with pytest.raises(RowTooLong, match=rf"row 2 has {length} tokens; a pack holds 1 to 8"):
        pack([8, 1, length], 8)


def test_no_rows_make_no_packs():
    assert pack([], 8) == []
    assert efficiency([], 8) == 0.0


def test_efficiency_is_the_share_of_room_that_holds_tokens():
    assert efficiency([Pack([0], 8), Pack([1], 4)], 8) == 0.75


def test_rows_that_fit_exactly_share_a_pack():
    assert [p.rows for p in pack([3, 5, 8, 4, 4], 8)] == [[2], [1, 0], [3, 4]]
