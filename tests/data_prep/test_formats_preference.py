import pytest

from data_prep.errors import RowError
from data_prep.formats.registry import convert
from data_prep.formats.unused import unused_fields
from data_prep.row_checks import check_row, merge_roles
from data_prep.rows import Labelled, Message, Preference, answered

CALL = {
    "id": "call_0",
    "type": "function",
    "function": {"name": "f", "arguments": {}},
}
Q, A, B = Message("user", "q"), Message("assistant", "a"), Message("assistant", "b")
SYSTEM, EARLIER = Message("system", "s"), (Message("user", "q0"), Message("assistant", "a0"))


def said(*messages: Message) -> list[dict]:
    return [{"role": message.role, "content": message.content} for message in messages]


def spoken(*messages: Message) -> list[dict]:
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return [{"from": names[m.role], "value": m.content} for m in messages]


@pytest.mark.parametrize(
    ("record", "row"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, Preference("q", "a", "b")),
        ({"prompt": "", "chosen": "a", "rejected": "b"}, Preference("", "a", "b")),
        (
            {"chosen": "The sky is blue.", "rejected": "The sky is green."},
            Preference("The sky is", " blue.", " green."),
        ),
        (
            {"prompt": said(Q), "chosen": said(A), "rejected": said(B)},
            Preference((Q,), (A,), (B,)),
        ),
        (
            {"chosen": said(*EARLIER, Q, A), "rejected": said(*EARLIER, Q, B)},
            Preference((*EARLIER, Q), (A,), (B,)),
        ),
        (
            {"prompt": "q", "chosen": said(Q, A), "rejected": said(Q, B), "messages": said(Q, A)},
            Preference((Q,), (A,), (B,)),
        ),
        (
            {"prompt": said(Q), "chosen": said(Q, A), "rejected": said(Q, B)},
            Preference((Q,), (A,), (B,)),
        ),
        ({"prompt": said(Q), "chosen": "a", "rejected": "b"}, Preference((Q,), (A,), (B,))),
        ({"prompt": "q", "chosen": said(A), "rejected": said(B)}, Preference((Q,), (A,), (B,))),
        (
            {"system": "s", "prompt": "q", "chosen": "a", "rejected": "b"},
            Preference((SYSTEM, Q), (A,), (B,)),
        ),
        (
            {"system": "s", "question": "q", "chosen": "a", "rejected": "b"},
            Preference((SYSTEM, Q), (A,), (B,)),
        ),
        (
            {"instruction": "q", "input": "", "chosen": "a", "rejected": "b"},
            Preference((Q,), (A,), (B,)),
        ),
        (
            {
                "conversations": spoken(SYSTEM, Q),
                "chosen": spoken(A)[0],
                "rejected": spoken(B)[0],
            },
            Preference((SYSTEM, Q), (A,), (B,)),
        ),
        (
            {"messages": said(Q), "chosen": said(A)[0], "rejected": said(B)[0]},
            Preference((Q,), (A,), (B,)),
        ),
    ],
)
def test_a_preference_is_read_in_each_of_its_spellings(record, row):
    found = convert(record, "preference")
    assert found == row
    check_row(found)
    assert not unused_fields(record, "preference")


def test_the_implied_prompt_ends_before_an_answer_even_if_the_same_call_begins_both():
    call = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    results = [{"role": "tool", "content": content} for content in ("sun", "rain")]
    chosen = [*said(Q), call, results[0], *said(A)]
    rejected = [*said(Q), call, results[1], *said(A)]
    found = convert({"chosen": chosen, "rejected": rejected}, "preference")
    assert found.prompt == (Q,)
    assert [turn.role for turn in found.chosen] == ["assistant", "tool", "assistant"]
    assert found.rejected[1] == Message("tool", "rain", tool_call_id="call_0")


def test_an_answer_that_goes_on_where_the_other_ends_keeps_its_first_turn():
    longer = said(Q, A, Message("user", "why?"), B)
    found = convert({"chosen": said(Q, A), "rejected": longer}, "preference")
    assert (found.prompt, found.chosen) == ((Q,), (A,))
    assert len(found.rejected) == 3


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("It is bluish", "It is black", "It is"),
        ("It is", "It is so", "It"),
        ("blue", "green", ""),
        ("Q: why?\nYes", "Q: why?\nYet", "Q: why?\n"),
        ("\u5929\u7a7a\u662f\u84dd", "\u5929\u7a7a\u662f\u7eff", "\u5929\u7a7a\u662f"),
    ],
)
def test_a_prompt_implied_by_texts_ends_where_a_word_ends(chosen, rejected, prompt):
    found = convert({"chosen": chosen, "rejected": rejected}, "preference")
    assert found.prompt == prompt
    assert (found.prompt + found.chosen, found.prompt + found.rejected) == (chosen, rejected)
    assert found.chosen
    assert found.rejected


def test_as_trl_extracts_the_prompt_so_does_this_where_a_word_ends():
    trl = pytest.importorskip("trl.data_utils")
    for one, other in (
        ("The sky is blue.", "The sky is green."),
        (said(*EARLIER, Q, A), said(*EARLIER, Q, B)),
    ):
        theirs = trl.extract_prompt({"chosen": one, "rejected": other})
        assert convert(theirs, "preference") == convert(
            {"chosen": one, "rejected": other}, "preference"
        )


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({"chosen": "a"}, "missing field: 'rejected'; the row has: chosen"),
        ({"chosen": None, "rejected": "b"}, "missing field: 'chosen' is null"),
        (
            {"chosen": float("nan"), "rejected": "b"},
            "'chosen' wants text or turns, found a number (N",
        ),
        ({"chosen": 5, "rejected": "b"}, "'chosen' wants text or turns, found a number"),
        ({"chosen": ["a"], "rejected": ["b"]}, "'chosen' wants a list of objects"),
        ({"chosen": "a", "rejected": said(B)}, "one of 'chosen' and 'rejected' is text, the other"),
        ({"chosen": said(A), "rejected": said(B)}, "missing field: 'prompt': the answers do not"),
        ({"chosen": said(Q, A), "rejected": said(B)}, "begins with the prompt, the other not"),
        ({"chosen": said(Q, A), "rejected": said(*EARLIER)}, "empty prompt: 'chosen' and 'rejec"),
        (
            {"prompt": "other", "chosen": said(Q, A), "rejected": said(Q, B)},
            "'prompt' is not what a turn before the answers says",
        ),
        (
            {"prompt": said(SYSTEM), "chosen": said(Q, A), "rejected": said(Q, B)},
            "'chosen' and 'rejected' do not begin with 'prompt'",
        ),
        (
            {"prompt": said(*EARLIER, Q), "chosen": said(Q, A), "rejected": said(Q, B)},
            "'chosen' and 'rejected' do not begin with 'prompt'",
        ),
        (
            {"prompt": 5, "chosen": "a", "rejected": "b"},
            "'prompt' wants text or turns, found a number",
        ),
        ({"prompt": "q", "chosen": {"from": "x"}, "rejected": {}}, "unknown role: 'x'"),
        ({"chosen": "a b", "rejected": "a b"}, "equal answers"),
        ({"prompt": "q", "chosen": "a", "rejected": "a "}, "equal answers: 'chosen' says the same"),
        ({"prompt": said(Q), "chosen": said(A), "rejected": said(A)}, "equal answers"),
        ({"chosen": said(Q, A), "rejected": said(Q, A)}, "equal answers"),
        ({"prompt": "q", "chosen": "a", "rejected": " "}, "empty answer: 'rejected' has no text"),
        ({"prompt": said(Q), "chosen": "", "rejected": "b"}, "empty answer"),
        ({"prompt": said(Q), "chosen": [], "rejected": said(B)}, "empty answer: 'chosen' has no"),
        ({"prompt": [], "chosen": said(A), "rejected": said(B)}, "empty prompt"),
        (
            {"prompt": said(*EARLIER), "chosen": "a", "rejected": "b"},
            "role order: the prompt ends with 'assistant', not with a user",
        ),
        (
            {"prompt": said(Q), "chosen": said(A, Q), "rejected": said(B)},
            "role order: 'chosen' ends with 'user', not 'assistant'",
        ),
        (
            {"prompt": said(Q), "chosen": said(A), "rejected": said(B, A)},
            "role order: 'assistant' follows 'assistant'",
        ),
        (
            {"prompt": said(Q, SYSTEM, Q), "chosen": said(A), "rejected": said(B)},
            "role order: 'system' follows 'user'",
        ),
        (
            {"prompt": said(Message("user", "")), "chosen": "a", "rejected": "b"},
            "empty prompt: a user turn has no text",
        ),
    ],
)
def test_a_preference_that_would_train_wrong_is_refused(record, problem):
    with pytest.raises(RowError) as caught:
        check_row(convert(record, "preference"))
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("record", "row"),
    [
        (
            {"prompt": "q", "completion": "a", "label": True},
            Labelled("q", "a", label=True),
        ),
        (
            {"prompt": said(Q), "completion": said(A), "label": False},
            Labelled((Q,), (A,), label=False),
        ),
        (
            {"prompt": said(Q), "completion": "a", "label": 0},
            Labelled((Q,), (A,), label=False),
        ),
        (
            {"system": "s", "prompt": "q", "completion": "a", "label": "true"},
            Labelled((SYSTEM, Q), (A,), label=True),
        ),
        (
            {"prompt": said(Q), "completion": "a", "label": "1"},
            Labelled((Q,), (A,), label=True),
        ),
        (
            {"messages": said(*EARLIER, Q, A), "label": False},
            Labelled((*EARLIER, Q), (A,), label=False),
        ),
        (
            {"conversations": spoken(SYSTEM, Q, A), "label": "False"},
            Labelled((SYSTEM, Q), (A,), label=False),
        ),
        (
            {"instruction": "q", "input": "", "output": "a", "kto_tag": True},
            Labelled((Q,), (A,), label=True),
        ),
    ],
)
def test_a_labelled_answer_is_read_in_each_of_its_spellings(record, row):
    found = convert(record, "kto")
    assert found == row
    check_row(found)
    assert not unused_fields(record, "kto")


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({"prompt": "q", "completion": "a"}, "missing field: 'label'"),
        ({"prompt": "q", "completion": "a", "label": None}, "missing field: 'label'"),
        ({"prompt": "q", "completion": "a", "label": "good"}, "true or false, found 'good'"),
        ({"prompt": "q", "completion": "a", "label": 0.5}, "true or false, found 0.5"),
        ({"prompt": "q", "completion": "a", "label": [True]}, "true or false, found [True]"),
        ({"completion": "a", "label": True}, "missing field: 'prompt'"),
        ({"completion": said(A), "label": True}, "missing field: 'prompt'"),
        ({"prompt": "q", "completion": 5, "label": True}, "'completion' wants text or turns"),
        ({"prompt": "q", "completion": " ", "label": True}, "empty answer: 'completion' has no"),
        ({"prompt": said(Q), "completion": [], "label": True}, "empty answer"),
        ({"messages": [], "label": True}, "no assistant turn"),
        ({"messages": said(A), "label": True}, "empty prompt"),
        ({"messages": said(Q), "label": True}, "the last turn is labelled, and it is 'user'"),
        (
            {"messages": said(Q, A, B), "label": True},
            "role order: the prompt ends with 'assistant'",
        ),
        ({"messages": said(Q, Message("assistant", "")), "label": True}, "empty answer"),
        ({"text": "a", "label": True}, "missing field: 'completion', 'messages', 'conversations'"),
    ],
)
def test_a_labelled_answer_that_would_train_wrong_is_refused(record, problem):
    with pytest.raises(RowError) as caught:
        check_row(convert(record, "kto"))
    assert problem in str(caught.value)


def test_calls_have_the_same_ids_in_the_prompt_as_in_either_answer():
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    result = {"role": "tool", "content": "t"}
    record = {"prompt": [*said(Q), call, result], "chosen": [call, result, *said(A)]}
    record["rejected"] = [call, result, *said(B)]
    row = convert({**record, "tools": [{"name": "f"}]}, "preference")
    assert [turn.tool_call_id for turn in (*row.prompt, *row.chosen) if turn.role == "tool"] == [
        "call_0",
        "call_1",
    ]
    assert row.chosen[:2] == row.rejected[:2]
    assert row.chosen[0].tool_calls[0]["id"] == "call_1"
    assert row.tools[0]["function"]["name"] == "f"
    check_row(row)


def test_repeated_roles_are_merged_in_each_part_and_never_across_the_answer():
    twice = (Message("user", "q"), Message("user", "r"))
    row = merge_roles(Preference(twice, (A, A), (B,)))
    assert row == Preference((Message("user", "q\n\nr"),), (Message("assistant", "a\n\na"),), (B,))
    kto = merge_roles(Labelled((Q, A), (A,), label=True))
    assert kto == Labelled((Q, A), (A,), label=True)
    assert merge_roles(Preference("q", "a", "b")) == Preference("q", "a", "b")


def test_only_the_answer_is_supervised_in_the_rows_of_a_preference():
    row = Preference((*EARLIER, Q), (A,), (B,))
    assert [turn.train for turn in row.chosen_row.messages] == [False, False, False, True]
    assert row.rejected_row.messages[-1] == B
    with pytest.raises(TypeError, match="all turns or all plain text"):
        answered("q", (A,))


def test_a_part_of_a_turn_that_nothing_is_made_of_is_named_wherever_it_stands():
    record = {"prompt": said(Q), "chosen": said(A)[0] | {"name": "Ann"}, "rejected": said(B)}
    assert unused_fields(record | {"score": 1}, "preference") == {"chosen[].name", "score"}


@pytest.mark.parametrize(
    ("record", "unused"),
    [
        ({"prompt": "q", "question": "x", "context": "c"}, {"question", "context"}),
        ({"prompt": "q", "messages": said(Message("user", "x"))}, {"messages"}),
        ({"question": "q", "input": "x"}, {"input"}),
        ({"messages": said(Q), "instruction": "x"}, {"instruction"}),
        (
            {"prompt": "q", "chosen": said(Q, A), "rejected": said(Q, B), "question": "x"},
            {"question"},
        ),
        (
            {"prompt": "q", "chosen": said(Q, A), "rejected": said(Q, B), "messages": said(A)},
            {"messages"},
        ),
    ],
)
def test_what_stands_beside_the_prompt_that_was_taken_is_named(record, unused):
    record = {"chosen": "a", "rejected": "b"} | record
    convert(record, "preference")
    assert unused_fields(record, "preference") == unused
