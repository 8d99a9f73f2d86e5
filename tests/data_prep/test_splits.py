from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from data_prep.rows import Completion, Conversation, Message, PlacedRow
from data_prep.splits import find_leaks, hold_out, prompt_hash

TEXT = st.sampled_from(["a", "b", "c", "d", "e", "f", " A ", "a  b", "A b", ""])
ROWS = st.builds(Completion, TEXT, TEXT) | st.builds(
    lambda q, a: Conversation((Message("user", q), Message("assistant", a))), TEXT, TEXT
)
PLACED = st.lists(ROWS, max_size=30).map(
    lambda rows: [PlacedRow(f"r.jsonl:{i}", row) for i, row in enumerate(rows, 1)]
)
SIZES = st.floats(0, 1, exclude_max=True) | st.integers(0, 40)


def question(row: Conversation | Completion) -> str:
    asked = row.prompt if isinstance(row, Completion) else row.messages[0].content
    return " ".join(asked.lower().split())


@given(PLACED, SIZES, st.integers(0, 9))
def test_no_question_is_on_both_sides_and_no_row_is_lost(rows, size, seed):
    train, held_out = hold_out(rows, size, seed)
    assert not {question(p.row) for p in train if question(p.row)} & {
        question(p.row) for p in held_out
    }
    assert Counter(train + held_out) == Counter(rows)
    assert train == [p for p in rows if p in train]


@given(PLACED, SIZES, st.integers(0, 9), st.randoms())
def test_the_split_does_not_depend_on_the_order_of_rows(rows, size, seed, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    one, other = hold_out(rows, size, seed), hold_out(shuffled, size, seed)
    assert [set(side) for side in one] == [set(side) for side in other]


@given(PLACED, SIZES, st.integers(0, 9))
def test_no_more_is_held_out_than_wanted_unless_every_question_is_asked_more_often(
    rows, size, seed
):
    held_out = hold_out(rows, size, seed)[1]
    wanted = round(size * len(rows)) if size < 1 else size
    if size and len(rows) > 1:
        wanted = max(1, wanted)
    if len(held_out) > wanted:
        groups = Counter(prompt_hash(p.row, seed) for p in rows)
        assert wanted
        assert len(held_out) == min(groups.values()) > wanted


def test_different_questions_are_held_out_exactly_as_many_as_wanted():
    rows = [PlacedRow(str(i), Completion(f"question {i}", "a")) for i in range(100)]
    assert len(hold_out(rows, 0.1, 0)[1]) == 10
    assert len(hold_out(rows, 7, 0)[1]) == 7
    assert hold_out(rows, 7, 0) != hold_out(rows, 7, 1)


def test_one_question_asked_by_most_rows_does_not_take_them_all_out_of_training():
    rows = [PlacedRow(str(i), Completion("the same", f"answer {i}")) for i in range(900)]
    rows += [PlacedRow(str(i), Completion(f"question {i}", "a")) for i in range(900, 1000)]
    for seed in range(20):
        assert len(hold_out(rows, 0.05, seed)[1]) == 50


def test_completions_without_a_prompt_are_told_apart_by_their_text():
    rows = [PlacedRow(str(i), Completion("", f"page {i}")) for i in range(10)]
    assert [len(side) for side in hold_out(rows, 3, 0)] == [7, 3]


@given(PLACED, PLACED)
def test_training_rows_whose_question_is_held_out_are_found_with_their_witness(rows, held_out):
    held_out = [PlacedRow(f"v{p.where}", p.row) for p in held_out]
    leaks = find_leaks(rows, held_out)
    validation = {p.where: prompt_hash(p.row) for p in held_out}
    for index, placed in enumerate(rows):
        if index in leaks:
            assert validation[leaks[index]] == prompt_hash(placed.row)
        else:
            assert prompt_hash(placed.row) not in validation.values()
