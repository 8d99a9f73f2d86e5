from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.packing import Packs, RowTooLong, alone, efficiency, fewest_packs, pack

CAPACITY = st.integers(1, 200)


@st.composite
def rows_and_capacity(draw: st.DrawFn) -> tuple[list[int], int]:
    capacity = draw(CAPACITY)
    return draw(st.lists(st.integers(1, capacity), max_size=80)), capacity


def as_lists(packs: Packs) -> list[list[int]]:
    return [rows.tolist() for rows in packs]


def plain_best_fit_decreasing(lengths: list[int], capacity: int) -> list[list[int]]:
    """The rows of each pack, by looking at every pack for every row.

    Of packs with equal room the one that got there last is taken.
    """
    packs: list[list[int]] = []
    rooms: list[int] = []
    filled_last: list[int] = []  # packs by when they were filled, the latest last
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        fitting = [p for p in filled_last if rooms[p] >= lengths[row]]
        if fitting:
            least = min(rooms[p] for p in fitting)
            chosen = [p for p in fitting if rooms[p] == least][-1]
            filled_last.remove(chosen)
        else:
            chosen = len(packs)
            packs.append([])
            rooms.append(capacity)
        packs[chosen].append(row)
        rooms[chosen] -= lengths[row]
        filled_last.append(chosen)
    return packs


def smallest_number_of_packs(lengths: list[int], capacity: int) -> int:
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
    assert sorted(packs.rows.tolist()) == list(range(len(lengths)))
    assert len(packs) == len(packs.starts) - 1 == len(as_lists(packs))
    for rows, tokens in zip(as_lists(packs), packs.tokens, strict=True):
        assert rows
        assert tokens == sum(lengths[row] for row in rows) <= capacity


@given(rows_and_capacity())
def test_packs_are_those_of_plain_best_fit_decreasing(case: tuple[list[int], int]):
    lengths, capacity = case
    assert as_lists(pack(lengths, capacity)) == plain_best_fit_decreasing(lengths, capacity)


@pytest.mark.parametrize("capacity", [63, 64, 65, 4095, 4096, 4097, 20_000, 300_000])
def test_packs_are_those_of_plain_best_fit_decreasing_at_large_capacities(capacity: int):
    """Rooms are words of bits in groups of words: capacities around and beyond a group."""
    random = np.random.default_rng(capacity)
    spread = random.lognormal(np.log(capacity / 6), 1.5, 300)
    lengths = np.clip(spread, 1, capacity).astype(np.int64).tolist()
    assert as_lists(pack(lengths, capacity)) == plain_best_fit_decreasing(lengths, capacity)


@given(rows_and_capacity())
def test_no_two_packs_could_have_been_one(case: tuple[list[int], int]):
    """So there are fewer than twice as many packs as the tokens need, plus one."""
    lengths, capacity = case
    packs = pack(lengths, capacity)
    assert all(a + b > capacity for a, b in combinations(packs.tokens.tolist(), 2))


@given(st.lists(st.integers(1, 12), max_size=7))
def test_few_rows_need_at_most_eleven_ninths_of_the_fewest_packs(lengths: list[int]):
    # Johnson (1973): BFD <= 11/9 OPT + 4; for so few rows the additive part is below one.
    assert len(pack(lengths, 12)) <= 11 / 9 * smallest_number_of_packs(lengths, 12) + 1


@given(st.lists(st.integers(1, 12), max_size=7))
def test_the_bound_is_never_above_the_fewest_packs_nor_below_the_tokens(lengths: list[int]):
    bound = fewest_packs(lengths, 12)
    assert -(-sum(lengths) // 12) <= bound <= smallest_number_of_packs(lengths, 12)


def test_the_bound_knows_that_long_rows_never_share_a_pack():
    assert fewest_packs([7, 7, 7], 12) == 3
    assert fewest_packs([9, 9, 7, 4, 4], 12) == 4  # no 4 fits beside a 9, and one beside the 7
    assert fewest_packs([], 12) == 0


@given(rows_and_capacity(), st.randoms())
def test_packing_is_repeatable_and_does_not_depend_on_the_order_of_rows(case, random):
    lengths, capacity = case
    assert as_lists(pack(lengths, capacity)) == as_lists(pack(np.array(lengths, int), capacity))
    shuffled = list(lengths)
    random.shuffle(shuffled)
    one, other = ([[r[i] for i in rows] for rows in pack(r, capacity)] for r in (lengths, shuffled))
    assert one == other


@pytest.mark.parametrize("length", [0, -1, 9, 10**6])
def test_a_row_that_no_pack_holds_is_refused_with_its_index(length: int):
    with pytest.raises(RowTooLong, match=rf"row 2 has {length} tokens; a pack holds 1 to 8"):
        pack([8, 1, length], 8)


def test_no_rows_make_no_packs():
    assert as_lists(pack([], 8)) == as_lists(alone([])) == []
    assert efficiency(pack([], 8), 8) == 0.0


def test_efficiency_is_the_share_of_room_that_holds_tokens():
    assert efficiency(pack([8, 4], 8), 8) == 0.75


def test_rows_that_fit_exactly_share_a_pack():
    assert as_lists(pack([3, 5, 8, 4, 4], 8)) == [[2], [1, 0], [3, 4]]


def test_rows_that_are_not_packed_have_a_sequence_each():
    packs = alone([3, 5])
    assert as_lists(packs) == [[0], [1]]
    assert packs.tokens.tolist() == [3, 5]
