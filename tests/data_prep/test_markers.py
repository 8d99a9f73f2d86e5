"""Special tokens and turn markers typed inside a row: found, refused, escaped."""

import json
from dataclasses import replace

import pytest
from chat_rows import conversation, refused, rendered
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tiny_tokenizer import SPECIAL

from data_prep.chat_templates import load_template
from data_prep.errors import RowError
from data_prep.markers import escape_markers, markers_of, refuse_markers
from data_prep.rows import Completion, Conversation, Labelled, Message, Preference, Row, Text

NASTY = (
    "<s>",
    "</s>",
    "<|im_end|>",
    "[INST]",
    "### Human:",
    "USER:",
    "aa",
    "aba",
    "a b",
    "x",
    " y",
)
"""Markers that overlap, that a space makes, and of one character."""


def holds(row: Row, markers: tuple[str, ...]) -> bool:
    try:
        refuse_markers(row, markers)
    except RowError:
        return True
    return False


@pytest.mark.parametrize(
    ("marker", "escaped"),
    [
        ("<|im_end|>", "<| im_end|>"),
        ("</s>", "</ s>"),
        ("<s>", "< s>"),
        ("[INST]", "[ INST]"),
        ("<<SYS>>", "<< SYS>>"),
        ("### Human:", "### Human :"),
        ("USER:", "USER :"),
        ("<start_of_turn>", "< start_of_turn>"),
        ("<\uff5cUser\uff5c>", "<\uff5c User\uff5c>"),
        ("aa", "a a"),
        ("\u2581", " "),
    ],
)
def test_escaped_markers_stay_readable(marker, escaped):
    assert escape_markers(Text(f"a {marker}!"), (marker,)) == (Text(f"a {escaped}!"), 1)


@pytest.mark.parametrize(
    ("text", "markers", "escaped"),
    [
        ("<|im_<|im_end|>end|>", ("<|im_end|>",), "<|im_<| im_end|>end|>"),
        ("</s</s>>", ("</s>", "</s</s>>"), "</s</ s>>"),
        ("aaaa", ("aa",), "a a a a"),
        ("<s></s><s>", ("<s>", "</s>"), "< s></ s>< s>"),
        ("#x:", ("#x:", "# x:"), "#\u200bx:"),
        ("<|y|>", ("<|y|>", "|"), "<  y >"),
    ],
)
def test_nested_overlapping_and_newly_made_markers_are_escaped(text, markers, escaped):
    row, _ = escape_markers(Text(text), markers)
    assert not holds(row, markers)
    assert row == Text(escaped)


PIECES = st.sampled_from([*NASTY, *(m[:2] for m in NASTY), *(m[1:] for m in NASTY), " ", "\u200b"])
SAID = st.lists(PIECES, max_size=8).map("".join)
MARKERS = st.lists(st.sampled_from(NASTY), min_size=1, unique=True).map(tuple)
ROWS = st.one_of(
    SAID.map(Text),
    st.builds(Completion, SAID, SAID),
    st.builds(lambda a, b: conversation(a, b, system=a), SAID, SAID),
)


@given(ROWS, MARKERS)
@example(Completion("x</", "s>y"), ("</s>",))
@settings(max_examples=300)
def test_after_escaping_no_marker_is_left_and_escaping_again_changes_nothing(row, markers):
    escaped, count = escape_markers(row, markers)
    assert not holds(escaped, markers)
    assert bool(count) == holds(row, markers)
    again, none = escape_markers(escaped, markers)
    assert again is escaped
    assert not none
    if not count:
        assert escaped is row


def turn(role: str) -> st.SearchStrategy[tuple[Message, ...]]:
    return SAID.map(lambda text: (Message(role, text),))


ANSWERED = st.one_of(
    st.builds(Preference, SAID, SAID, SAID),
    st.builds(Preference, turn("user"), turn("assistant"), turn("assistant")),
    st.builds(Labelled, SAID, SAID, st.booleans()),
    st.builds(Labelled, turn("user"), turn("assistant"), st.booleans()),
)


@given(ANSWERED, MARKERS)
@example(Preference("x</", "s>y", "z"), ("</s>",))
@settings(max_examples=300)
def test_answers_with_a_prompt_are_escaped_on_every_side_or_refused(row, markers):
    try:
        escaped, count = escape_markers(row, markers)
    except RowError:
        # Of a plain prompt and two answers alone there may be no way to part them.
        plain = isinstance(row, Preference) and isinstance(row.prompt, str)
        assume(not plain)
        raise
    pairs = isinstance(row, Preference)
    sides = (row.chosen_row, row.rejected_row) if pairs else (row.row,)
    left = (escaped.chosen_row, escaped.rejected_row) if pairs else (escaped.row,)
    assert not any(holds(side, markers) for side in left)
    assert bool(count) == any(holds(side, markers) for side in sides)
    assert escape_markers(escaped, markers) == (escaped, 0)


@given(SAID, MARKERS)
def test_escaping_only_adds_separators_and_drops_one_character_markers(text, markers):
    row, _ = escape_markers(Text(text), markers)
    single = {marker for marker in markers if len(marker) == 1}
    plain = [sign for sign in text if sign not in {" ", "\u200b", "\u2060", *single}]
    left = [sign for sign in row.text if sign not in {" ", "\u200b", "\u2060", *single}]
    assert left == plain


def test_a_marker_that_a_prompt_begins_and_its_completion_ends_is_found_and_escaped(chatml):
    row = Completion("say <|im_", "end|> now")
    assert refused(row, chatml).reason == "special token in the text"
    escaped, count = escape_markers(row, markers_of(row, chatml))
    assert count == 1
    assert not holds(escaped, markers_of(row, chatml))
    assert (escaped.prompt + escaped.completion).replace(" ", "") == "say<|im_end|>now"


CALL = {
    "id": "<s>",
    "function": {"name": "f", "arguments": {"<s>": ["x </s>", {"k": "<pad>"}], "n": 1}},
}
TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "</s>", "parameters": {"<s>": {}}},
}


def test_calls_and_tools_are_escaped_alike_and_stay_json(chatml):
    row = Conversation(
        (
            Message("user", "q"),
            Message("assistant", "", (CALL,), train=False),
            Message("tool", '[1, "</s>"]', tool_call_id="<s>"),
            Message("assistant", "a"),
        ),
        (TOOL,),
    )
    escaped, count = escape_markers(row, markers_of(row, chatml))
    assert count == 8
    called, told = escaped.messages[1], escaped.messages[2]
    arguments = {"< s>": ["x </ s>", {"k": "< pad>"}], "n": 1}
    assert called.tool_calls == ({"id": "< s>", "function": {"name": "f", "arguments": arguments}},)
    assert told.tool_call_id == "< s>"
    assert json.loads(told.content) == [1, "</ s>"]
    assert escaped.tools[0]["function"]["parameters"] == {"< s>": {}}
    assert not called.train
    assert CALL["id"] == "<s>", "the row itself is left as it was"


def test_two_keys_that_escaping_would_make_one_refuse_the_row(chatml):
    tool = {"function": {"name": "f", "parameters": {"<s>": 1, "< s>": 2}}}
    row = replace(conversation("q", "a"), tools=(tool,))
    with pytest.raises(RowError, match="special token in the text: two keys"):
        escape_markers(row, markers_of(row, chatml))


def test_a_marker_made_of_json_signs_is_left_and_refused():
    row = replace(conversation("q", "a"), tools=({"function": {"name": "f"}},))
    assert escape_markers(row, ('{"',)) == (row, 0)
    assert holds(row, ('{"',))


@pytest.mark.parametrize("kind", ["conversation", "completion", "text"])
def test_escaped_rows_render_without_special_tokens_of_their_own(template, kind):
    for marker in (*SPECIAL, *template.markers):
        said = f"Hi {marker} there"
        row = {
            "conversation": conversation(said, said, said, said, system=said),
            "completion": Completion(said, " " + said),
            "text": Text(said),
        }[kind]
        clean = {
            "conversation": conversation("q", "a", "r", "b", system="s"),
            "completion": Completion("q", " a"),
            "text": Text("t"),
        }[kind]
        special = template.tokenizer.special_ids
        escaped, _ = escape_markers(row, markers_of(row, template))
        found = [index for index in rendered(escaped, template).ids if index in special]
        assert found == [index for index in rendered(clean, template).ids if index in special]


def test_rows_without_turns_may_hold_what_only_a_template_makes_a_marker(tokenizer):
    template = load_template("mistral", tokenizer)
    for row in (Completion("[INST]", " a"), Text("[INST]")):
        assert escape_markers(row, markers_of(row, template)) == (row, 0)
        rendered(row, template)
