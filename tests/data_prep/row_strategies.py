"""Rows of every kind that formats can hold, for hypothesis."""

import json

from hypothesis import strategies as st

from data_prep.row_checks import check_row
from data_prep.rows import Completion, Conversation, Labelled, Message, Preference, Row, Text

CHARACTERS = st.sampled_from([*"ab #:\n\"'{}\\", "é", "你", "\U0001f98a", "\u2028", "### Human"])
SAID = st.lists(CHARACTERS, min_size=1, max_size=6).map("".join).filter(str.strip)
ANY_TEXT = st.lists(CHARACTERS, max_size=6).map("".join)
NAMES = st.sampled_from(["weather", "search", "f"])
ARGUMENTS = st.dictionaries(
    st.sampled_from(["city", "n"]),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | ANY_TEXT,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
        max_leaves=3,
    ),
    max_size=2,
)
OWN_IDS = st.sampled_from(["abc123", "call_9", "x"])
PARAMETERS = st.none() | st.just({"type": "object", "properties": {"city": {"type": "string"}}})


@st.composite
def tools(draw) -> dict:
    fields = {"name": draw(NAMES), "description": draw(st.none() | ANY_TEXT)}
    strict = draw(st.sampled_from([{}, {"strict": True}, {"strict": False}]))
    return {
        "type": "function",
        "function": {**fields, "parameters": draw(PARAMETERS), **strict},
    }


@st.composite
def answers(draw, first_call: int, *, calls: bool, flags: bool) -> tuple[Message, ...]:
    """What the assistant does after a question: it may call tools before it answers."""
    train = draw(st.booleans()) if flags else True
    said = Message("assistant", draw(SAID), train=train)
    count = draw(st.integers(0, 2)) if calls else 0
    if not count:
        return (said,)
    made = tuple(
        {
            "id": f"call_{first_call + i}",
            "type": "function",
            "function": {"name": draw(NAMES), "arguments": draw(ARGUMENTS)},
        }
        for i in range(count)
    )
    results = (Message("tool", draw(ANY_TEXT), tool_call_id=call["id"]) for call in made)
    return (Message("assistant", "", made, train=train), *results, said)


@st.composite
def conversations(
    draw, *, calls: bool = False, flags: bool = False, system: bool = True, most: int = 3
) -> Conversation:
    """Conversations that `check_row` lets pass, with ids as the converters give them."""
    turns = [Message("system", draw(SAID))] if system and draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, most))):
        turns.append(Message("user", draw(SAID)))
        made = sum(len(turn.tool_calls) for turn in turns)
        turns += draw(answers(made, calls=calls, flags=flags))
    offered = draw(st.lists(tools(), max_size=2)) if calls else []
    row = Conversation(tuple(turns), tuple(offered))
    check_row(row)
    return row


@st.composite
def preferences(draw) -> Preference:
    row = draw(conversations(calls=True))
    start = max(i for i, turn in enumerate(row.messages) if turn.role == "user") + 1
    prompt, chosen = row.messages[:start], row.messages[start:]
    made = sum(len(turn.tool_calls) for turn in prompt)
    rejected = draw(answers(made, calls=True, flags=False))
    rejected = (*rejected[:-1], Message("assistant", "No: " + chosen[-1].content))
    return Preference(prompt, chosen, rejected, row.tools)


@st.composite
def labelled(draw) -> Labelled:
    row = draw(conversations(calls=True))
    start = max(i for i, turn in enumerate(row.messages) if turn.role == "user") + 1
    return Labelled(row.messages[:start], row.messages[start:], draw(st.booleans()), row.tools)


PLAIN_PREFERENCES = st.builds(lambda p, a: Preference(p, a, f"{a} not"), ANY_TEXT, SAID)
PLAIN_LABELLED = st.builds(Labelled, ANY_TEXT, SAID, st.booleans())
COMPLETIONS = st.builds(Completion, ANY_TEXT, SAID)
TEXTS = st.builds(Text, SAID)
ROWS: st.SearchStrategy[Row] = st.one_of(
    *(conversations(calls=True, flags=True), COMPLETIONS, TEXTS),
    *(preferences(), PLAIN_PREFERENCES, labelled(), PLAIN_LABELLED),
)


def through_json(record: dict) -> dict:
    """A record as a file gives it back."""
    return json.loads(json.dumps(record, ensure_ascii=False, allow_nan=False))
