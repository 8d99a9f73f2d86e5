"""Answers of long conversations are measured in windows: the same as measured one by one."""

import pytest
from chat_rows import CHATML, as_lists, conversation, write_template
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import answer_starts as module
from data_prep.chat_templates import ChatTemplate, load_template
from data_prep.rendering import render
from data_prep.rows import Conversation, Message, Row

WORDS = st.text("ab .\n<|\u00e9\U0001f98a", min_size=1, max_size=5).filter(str.strip)
TURN = st.tuples(WORDS, WORDS, st.booleans(), st.booleans())


def outcome(row: Row, template: ChatTemplate, window: int) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WINDOW", window)
        return as_lists(render([row], template)[0])


@given(st.lists(TURN, min_size=3, max_size=9), st.just("") | WORDS, st.integers(1, 3))
@settings(max_examples=40)
def test_windows_change_nothing(template, said, system, window):
    messages = [Message("system", system)] if system else []
    for question, answer, train, asks_a_tool in said:
        messages += [Message("user", question), Message("assistant", answer, train=train)]
        if asks_a_tool and template.name in ("chatml", "llama-3", "zephyr"):
            messages += [Message("tool", question), Message("assistant", answer)]
    row = Conversation(tuple(messages))
    assert outcome(row, template, window) == outcome(row, template, 100)


USER = "{% if message['role'] == 'user' and loop.index "
LATE = USER + "> 9 %}{{ 'late ' }}{% endif %}"
NUMBERED = USER + "> 0 %}{{ loop.index ~ '. ' }}{% endif %}"
OLD = USER + "== 9 and messages | length > 11 %}{{ 'old ' }}{% endif %}"
FULL = USER + "== 13 and messages | length < 14 %}{{ 'last ' }}{% endif %}"
NO_STOP = "{% if loop.index == 10 %}{{ 'x' }}{% else %}{{ '<|im_end|>' }}{% endif %}"


@pytest.mark.parametrize(
    ("source", "refused"),
    [
        *[
            (CHATML.replace("{{ '<|im_start|>' +", extra + "{{ '<|im_start|>' +", 1), refused)
            for extra, refused in ((LATE, False), (NUMBERED, False), (OLD, True), (FULL, True))
        ],
        (CHATML.replace("+ '<|im_end|>\\n' }}", "}}" + NO_STOP + "{{ '\\n' }}"), True),
    ],
)
def test_templates_that_write_later_turns_otherwise_are_measured_on_all_turns(
    tokenizer, tmp_path, source, refused
):
    template = load_template(write_template(tmp_path, source), tokenizer)
    row = conversation(*"abcdefghijklmn")
    found, expected = outcome(row, template, 2), outcome(row, template, 100)
    assert isinstance(found, str) == isinstance(expected, str) == refused
    assert refused or found == expected


def test_ten_times_the_turns_cost_about_ten_times_as_much(chatml, monkeypatch):
    rendered: list[int] = []
    text = ChatTemplate.text

    def counted(self, messages, **options):
        rendered.append(len(messages))
        return text(self, messages, **options)

    monkeypatch.setattr(ChatTemplate, "text", counted)
    costs = []
    for turns in (100, 1000):
        rendered.clear()
        render([conversation(*(f"turn {turn}" for turn in range(2 * turns)))], chatml)
        costs.append(sum(rendered))
    assert costs[1] < 15 * costs[0]
