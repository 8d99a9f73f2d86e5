import pytest
from hypothesis import given
from row_strategies import ROWS

from data_prep.errors import RowError
from data_prep.formats.openai import openai
from data_prep.rendering import as_messages, render
from data_prep.row_codec import decode_row, encode_row
from data_prep.row_text import better_text, prompt_text, response_text, text_of, whole_text
from data_prep.rows import Completion, Conversation, Labelled, Message, Preference, Text
from data_prep.splits import prompt_hash

EARLIER = (Message("user", "q0"), Message("assistant", "a0"))
Q, A, B = Message("user", "q"), Message("assistant", "a"), Message("assistant", "b")


@pytest.mark.parametrize(
    ("row", "asked", "answered"),
    [
        (Text("a page"), "", "a page"),
        (Completion("q", "a"), "q", "a"),
        (Conversation((*EARLIER, Q, A)), "q0\nq", "a0\na"),
        (Preference("q", "a", "b"), "q", "a\nb"),
        (Preference((*EARLIER, Q), (A,), (B,)), "q0\nq", "a\nb"),
        (Labelled("q", "a", label=False), "q", "a"),
        (Labelled((*EARLIER, Q), (A,), label=True), "q0\nq", "a"),
    ],
)
def test_what_is_asked_and_what_is_answered_of_each_kind_of_row(row, asked, answered):
    assert (prompt_text(row), response_text(row)) == (asked, answered)
    assert text_of(row, "both") == f"{asked}\n{answered}"


def test_the_better_answer_of_a_preference_is_the_chosen_one():
    assert better_text(Preference("q", "a", "b")) == "a"
    assert better_text(Preference((*EARLIER, Q), (A,), (B,))) == "a"
    assert better_text(Labelled("q", "a", label=False)) == "a"


def test_calls_and_tools_as_deep_as_may_be_are_kept_and_deeper_ones_are_refused():
    def nested(levels: int) -> dict:
        value: object = 1
        for _ in range(levels):
            value = [value]
        messages = [{"role": "user", "content": "q"}]
        call = {"name": "f", "arguments": {"x": value}}
        messages += [{"role": "assistant", "content": None, "tool_calls": [call]}]
        return {"messages": messages, "tools": [{"name": "f", "parameters": {"x": value}}]}

    row = openai(nested(98))
    assert decode_row(encode_row(row)) == row
    for levels in (99, 10**4):
        with pytest.raises(RowError, match="nested more than 100 levels deep"):
            openai(nested(levels))


@given(ROWS)
def test_a_row_of_any_kind_that_is_kept_as_text_comes_back_as_it_was(row):
    again = decode_row(encode_row(row))
    assert again == row
    assert whole_text(again) == whole_text(row)


@given(ROWS, ROWS)
def test_rows_have_equal_texts_only_if_they_are_equal(one, other):
    assert (whole_text(one) == whole_text(other)) == (one == other)


def test_rows_that_differ_in_one_part_have_different_texts():
    prompt = (*EARLIER, Q)
    rows = [
        Text("qa"),
        Completion("", "qa"),
        Completion("q", "a"),
        Conversation((*prompt, A)),
        Preference("q", "a", "b"),
        Preference("q", "b", "a"),
        Preference("", "qa", "b"),
        Preference(prompt, (A,), (B,)),
        Preference(prompt, (B,), (A,)),
        Labelled("q", "a", label=True),
        Labelled("q", "a", label=False),
        Labelled(prompt, (A,), label=True),
        Labelled(prompt, (A,), label=False),
        Labelled((Q,), (A,), label=False),
    ]
    assert len({whole_text(row) for row in rows}) == len(rows)


def test_rows_that_ask_the_same_first_question_stay_together_whatever_kind_they_are():
    rows = [
        Conversation((Message("user", "Q0"), A)),
        Preference((*EARLIER, Q), (A,), (B,)),
        Preference(" q0", "a", "b"),
        Labelled((*EARLIER, Q), (A,), label=False),
        Labelled("q0", "a", label=True),
        Completion("q0", "a"),
        Completion("", "q0"),
        Text("q0"),
    ]
    assert len({prompt_hash(row) for row in rows}) == 1
    assert prompt_hash(Text("other")) != prompt_hash(rows[0])


@pytest.mark.parametrize(
    "row",
    [
        Preference("q", "a", "b"),
        Preference((Q,), (A,), (B,)),
        Labelled("q", "a", label=True),
        Labelled((Q,), (A,), label=False),
    ],
)
def test_a_row_for_preference_training_is_not_rendered_whatever_else_is_trained(row, chatml):
    (found,) = render([row], chatml)
    assert found.reason == "preference row"
    assert "dpo, orpo or reward learns from chosen/rejected, kto from a label" in found.detail
    assert "sft, pretrain and distill would teach every answer" in found.detail
    assert as_messages(row) == []
