from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from row_strategies import (
    COMPLETIONS,
    PLAIN_LABELLED,
    PLAIN_PREFERENCES,
    ROWS,
    TEXTS,
    conversations,
    labelled,
    preferences,
    through_json,
)

from data_prep.errors import RowError
from data_prep.formats.detection import detect
from data_prep.formats.human_assistant import TURN
from data_prep.formats.registry import CONVERTERS, FormatName, convert
from data_prep.formats.tool_calls import renumbered
from data_prep.formats.writing import WRITERS, WrittenFormat, write_record
from data_prep.rows import Completion, Conversation, Labelled, Message, Preference, Text

CALL = {
    "id": "call_0",
    "type": "function",
    "function": {"name": "weather", "arguments": {"city": "Paris"}},
}
TOOL = {"type": "function", "function": {"name": "f", "description": None, "parameters": None}}


def turns(*pairs: tuple[str, str]) -> Conversation:
    return Conversation(tuple(Message(role, content) for role, content in pairs))


SYSTEM, Q, A = ("system", "s"), ("user", "q"), ("assistant", "a")


def has_no_marker(row: Conversation) -> bool:
    written = "".join(f"### Human: {message.content}" for message in row.messages)
    return len(TURN.findall(written)) == len(row.messages)


def has_no_space_at_ends(row: Conversation) -> bool:
    return all(message.content == message.content.rstrip() for message in row.messages)


def is_plain_text(row: Text) -> bool:
    return not TURN.match(row.text.lstrip())


HELD = {
    "alpaca": conversations(),
    "sharegpt": conversations(calls=True, flags=True),
    "openai": conversations(calls=True, flags=True),
    "completion": COMPLETIONS | labelled().map(lambda row: row.row),
    "guanaco": conversations(system=False).filter(has_no_marker).filter(has_no_space_at_ends),
    "dolly": conversations(most=1),
    "qa": conversations(most=1).filter(lambda row: not TURN.match(row.messages[-2].content)),
    "text": TEXTS.filter(is_plain_text),
    "preference": preferences() | PLAIN_PREFERENCES,
    "kto": labelled() | PLAIN_LABELLED,
}
"""Rows that each format can hold."""


def test_every_format_that_may_be_written_has_a_writer_and_a_reader_and_rows_to_test_it():
    assert set(WRITERS) == set(get_args(WrittenFormat)) == set(HELD)
    assert set(CONVERTERS) - set(WRITERS) == {"self_instruct"}
    assert set(WRITERS) < set(get_args(FormatName))


@pytest.mark.parametrize("name", HELD)
@given(data=st.data())
def test_a_row_that_a_format_can_hold_is_written_and_read_again_as_it_was(name, data):
    row = data.draw(HELD[name])
    record = through_json(write_record(row, name))
    assert convert(record, name) == row
    assert write_record(convert(record, name), name) == record
    assert detect(record).format == name


@pytest.mark.parametrize("name", HELD)
@given(row=ROWS)
def test_any_row_is_written_without_loss_or_refused(name, row):
    try:
        record = through_json(write_record(row, name))
    except RowError as error:
        assert error.reason == f"cannot be written as {name}"  # noqa: PT017 (a record is as right)
        assert error.detail  # noqa: PT017
        return
    assert convert(record, name) == row


@given(conversations(calls=True, flags=True))
def test_openai_and_sharegpt_hold_the_same_conversations(row):
    openai = write_record(row, "openai")
    sharegpt = write_record(convert(through_json(openai), "openai"), "sharegpt")
    back = write_record(convert(through_json(sharegpt), "sharegpt"), "openai")
    assert back == openai


RECORDS = {
    "alpaca": {
        "instruction": "q",
        "input": "i",
        "output": "a",
        "system": "s",
        "history": [["q0", "a0"]],
    },
    "sharegpt": {
        "conversations": [
            {"from": "human", "value": "q"},
            {"from": "function_call", "value": '{"name": "f", "arguments": {}}'},
            {"from": "observation", "value": "t"},
            {"from": "gpt", "value": "a", "weight": 0},
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "b"},
        ],
        "tools": '[{"name": "f"}]',
    },
    "openai": {
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "s"}]},
            {"role": "user", "content": "q"},
            {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "t"},
            {"role": "assistant", "content": "a"},
        ],
        "functions": [{"name": "f"}],
    },
    "completion": {"prompt": "q", "completion": "a"},
    "guanaco": {"input": "### Human: q ### Assistant:", "output": "a"},
    "dolly": {"instruction": "q", "context": "c", "response": "a"},
    "qa": {"problem": "q", "solution": "a"},
    "text": {"text": "a page"},
    "preference": {
        "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
        "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}],
    },
    "kto": {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
        "label": "False",
    },
}


@pytest.mark.parametrize("name", WRITERS)
def test_another_spelling_of_a_record_is_written_to_one_that_means_the_same(name):
    row = convert(RECORDS[name], name)
    assert convert(write_record(row, name), name) == row


@pytest.mark.parametrize(
    ("row", "name", "lost"),
    [
        (Conversation(turns(Q, A).messages, (TOOL,)), "alpaca", "the tools it offers would be"),
        (Conversation(turns(Q, A).messages, (TOOL,)), "guanaco", "the tools it offers would be"),
        (
            Conversation((Message(*Q), Message("assistant", "", (CALL,)))),
            "dolly",
            "its tool calls and their results would be lost",
        ),
        (
            Conversation((Message(*Q), Message("assistant", "", (CALL,)))),
            "guanaco",
            "its tool calls would be lost",
        ),
        (
            Conversation((Message(*Q), Message("assistant", "a", (CALL,)))),
            "sharegpt",
            "the text that stands beside a call would be lost",
        ),
        (
            Conversation((Message(*Q), Message("assistant", "a", train=False))),
            "qa",
            "that a turn is not to be trained would be lost",
        ),
        (
            Conversation((Message(*Q), Message("assistant", "a", train=False))),
            "guanaco",
            "that a turn is not to be trained would be lost",
        ),
        (turns(SYSTEM, Q, A), "guanaco", "its system message would be lost"),
        (turns(Q, A, Q, A), "dolly", "its turns before the last question would be lost"),
        (turns(Q, A, Q, A), "qa", "its turns before the last question would be lost"),
        (turns(Q, A, Q, A), "completion", "its turns before the answer are not marked train: f"),
        (turns(Q, A, Q), "alpaca", "its turns are not questions each with an answer"),
        (turns(Q, Q, A), "alpaca", "its turns are not questions each with an answer"),
        (turns(("system", ""), Q, A), "alpaca", "its 3 turns in 'messages' would become 2"),
        (turns(("user", " "), A), "alpaca", "the content of turn 1 (user) would be changed"),
        (turns(("user", "q\n"), A), "guanaco", "the white space at the end of a turn would be"),
        (turns(("user", "### Human: q"), A), "guanaco", "would become several turns"),
        (turns(("user", "### Human: q"), A), "qa", "it could not be read again: wrong field"),
        (turns(("developer", "s"), Q, A), "openai", "the role of turn 1 (developer) would be"),
        (turns(("developer", "s"), Q, A), "sharegpt", "the role of turn 1 (developer) would be"),
        (turns(Q, A), "text", "its turns would be lost"),
        (turns(Q, A), "preference", "it has no worse answer"),
        (turns(Q, A), "kto", "nothing says whether its answer is a good one"),
        (Completion("q", "a"), "openai", "it is plain text without turns"),
        (Completion("q", "a"), "text", "which part of it is the prompt would be lost"),
        (Completion("q", " "), "completion", "it could not be read again: empty answer"),
        (Text("a"), "completion", "it has no prompt"),
        (Text("a"), "alpaca", "it is plain text without turns"),
        (Text("### Human: q"), "text", "it could not be read again: wrong field"),
        (Preference("q", "a", "b"), "completion", "which answer is the better one would be lost"),
        (Preference("q", "a", "b"), "kto", "which answer is the better one would be lost"),
        (Labelled("q", "a", label=False), "completion", "whether its answer is a good one would"),
        (
            Labelled((Message(*Q),), (Message(*A),), label=False),
            "openai",
            "whether its answer is a good one would be lost",
        ),
    ],
)
def test_what_a_format_has_no_place_for_is_named(row, name, lost):
    with pytest.raises(RowError) as caught:
        write_record(row, name)
    assert caught.value.reason == f"cannot be written as {name}"
    assert lost in caught.value.detail


def conversation_with_ids(first: str, second: str, results: tuple[str, str]) -> Conversation:
    calls = tuple(CALL | {"id": name} for name in (first, second))
    return Conversation(
        (
            Message(*Q),
            Message("assistant", "", calls),
            *(Message("tool", "t", tool_call_id=name) for name in results),
            Message(*A),
        )
    )


def test_openai_keeps_the_ids_of_calls_and_sharegpt_numbers_them_again():
    row = conversation_with_ids("x", "y", ("x", "y"))
    assert convert(write_record(row, "openai"), "openai") == row
    again = convert(write_record(row, "sharegpt"), "sharegpt")
    assert again == conversation_with_ids("call_0", "call_1", ("call_0", "call_1"))
    assert again.messages == renumbered(row.messages)


def test_results_in_another_order_than_their_calls_are_not_given_to_the_wrong_ones():
    with pytest.raises(RowError, match=r"the tool_call_id of turn 3 \(tool\) would be changed"):
        write_record(conversation_with_ids("x", "y", ("y", "x")), "sharegpt")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes"])
def test_arguments_that_json_cannot_hold_are_refused(value):
    call = CALL | {"function": {"name": "f", "arguments": {"x": value}}}
    row = Conversation((Message(*Q), Message("assistant", "", (call,))))
    for name in ("openai", "sharegpt"):
        with pytest.raises(RowError, match="cannot be written as JSON"):
            write_record(row, name)
