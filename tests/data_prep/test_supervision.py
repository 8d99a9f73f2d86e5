"""What ``supervise`` makes carry loss, plain text, and the law that every mask follows."""

import pytest
from chat_rows import (
    AROUND,
    answers_of,
    conversation,
    learned,
    refused,
    rendered,
    row_of,
    write_template,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizer import SPECIAL, build_tokenizer, supervised_runs, write_jsonl

from data_prep.chat_templates import ChatTemplate, load_template
from data_prep.errors import RowError
from data_prep.pipeline import DataConfig, prepare
from data_prep.rendering import Rendered, Supervise, as_messages, render, supervised_turns
from data_prep.row_text import prompt_text, response_text, whole_text
from data_prep.rows import Completion, Conversation, Message, Text
from data_prep.sources.config import SourceConfig
from data_prep.splits import prompt_hash
from data_prep.tokenizer import load_tokenizer

NOT_TRAINED = {"train": False}


def turns(*said: tuple[str, str, dict[str, bool]]) -> Conversation:
    return Conversation(tuple(Message(role, text, **options) for role, text, options in said))


def first_not_trained() -> Conversation:
    return turns(
        ("user", "q", {}),
        ("assistant", "one", NOT_TRAINED),
        ("user", "r", {}),
        ("assistant", "two", {}),
    )


def last_not_trained() -> Conversation:
    return turns(
        ("user", "q", {}),
        ("assistant", "one", {}),
        ("user", "r", {}),
        ("assistant", "two", NOT_TRAINED),
    )


def render_one(row, template, supervise: Supervise) -> Rendered | RowError:
    return render([row], template, supervise)[0]


def test_last_supervises_the_last_answer_alone(template):
    row = row_of("sharegpt")
    found = render_one(row, template, "last")
    assert supervised_runs(found, template.tokenizer) == learned(template, answers_of(row)[-1:])
    answers = rendered(row, template)
    assert (found.ids.tolist(), found.prompt_tokens) == (
        answers.ids.tolist(),
        answers.prompt_tokens,
    )


def test_last_skips_what_follows_the_last_answer(template):
    row = conversation("q", "a", "r", "b", "And?")
    found = render_one(row, template, "last")
    assert supervised_runs(found, template.tokenizer) == learned(template, ["b"])


def test_last_refuses_a_row_whose_last_answer_is_not_to_be_trained(template):
    found = render_one(last_not_trained(), template, "last")
    assert str(found) == (
        "nothing supervised: the last assistant turn is marked as not to be trained"
    )
    found = render_one(first_not_trained(), template, "last")
    assert supervised_runs(found, template.tokenizer) == learned(template, ["two"])


def test_all_supervises_every_token_but_the_first(template):
    row = row_of("openai")
    found = render_one(row, template, "all")
    assert found.supervised.tolist() == [False] + [True] * (len(found.ids) - 1)
    answers = rendered(row, template)
    assert (found.ids.tolist(), found.prompt_tokens) == (
        answers.ids.tolist(),
        answers.prompt_tokens,
    )


@pytest.mark.parametrize("row", [first_not_trained(), last_not_trained()])
def test_all_leaves_out_answers_that_are_not_to_be_trained_with_their_stop_token(template, row):
    found = render_one(row, template, "all")
    left = [i for i, flag in enumerate(found.supervised) if not flag]
    (text,) = (message.content for message in row.messages if not message.train)
    assert left[0] == 0
    assert [template.tokenizer.decode(found.ids[left[1] : left[-1] + 1])] == learned(
        template, [text]
    )
    assert left[1:] == list(range(left[1], left[-1] + 1))
    assert found.prompt_tokens == rendered(row, template).prompt_tokens


@pytest.mark.parametrize("supervise", ["answers", "last", "all"])
def test_a_row_of_which_no_answer_is_to_be_trained_is_refused(template, supervise):
    row = turns(("user", "q", {}), ("assistant", "one", NOT_TRAINED))
    found = render_one(row, template, supervise)
    assert isinstance(found, RowError)
    assert found.reason == "nothing supervised"


@pytest.mark.parametrize("supervise", ["answers", "last", "all"])
def test_the_prompt_that_is_served_is_the_one_before_the_last_learned_answer(template, supervise):
    for row in (row_of("openai"), first_not_trained(), last_not_trained()):
        found = render_one(row, template, supervise)
        if isinstance(found, RowError):
            assert supervise == "last"
            continue
        turn = supervised_turns(row, supervise)[-1]
        assert as_messages(row) == row.as_dicts()[:turn]
        prompt = template.text(row.as_dicts()[:turn], generation_prompt=True)
        assert template.tokenizer.encode([prompt])[0] == found.ids[: found.prompt_tokens].tolist()


@pytest.mark.parametrize("supervise", ["answers", "last", "all"])
def test_every_mode_ends_answers_where_their_own_stop_token_is(tokenizer, tmp_path, supervise):
    """The checks of the template hold for what is left out as for what is learned."""
    source = (
        "{% for message in messages %}{% if message['role'] == 'user' %}"
        "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ ' ' + message['content'] }}"
        "{% if loop.last or message['content'] != 'one' %}{{ eos_token }}{% endif %}{% endif %}"
        "{% endfor %}"
    )
    template = load_template(write_template(tmp_path, source), tokenizer)
    found = render_one(first_not_trained(), template, supervise)
    if supervise == "all":
        assert isinstance(found, RowError)
        assert found.reason == "stop token missing"
    else:
        assert supervised_runs(found, tokenizer) == [" two</s>"]


def test_a_completion_is_learned_with_its_prompt_only_under_all(template):
    row = Completion("The capital of France is", " Paris.")
    for supervise in ("answers", "last"):
        found = render_one(row, template, supervise)
        assert supervised_runs(found, template.tokenizer) == [" Paris.</s>"]
    found = render_one(row, template, "all")
    assert supervised_runs(found, template.tokenizer) == ["The capital of France is Paris.</s>"]
    assert found.prompt_tokens == rendered(row, template).prompt_tokens


def test_the_setting_reaches_the_prepared_data(chatml, tmp_path):
    row = conversation("q", "a", "r", "b")
    path = write_jsonl(tmp_path / "rows.jsonl", [{"messages": row.as_dicts()}])
    counted = []
    for supervise in ("answers", "last", "all"):
        (tmp_path / supervise).mkdir()
        config = DataConfig(sources=[SourceConfig(path=path)], supervise=supervise)
        counted.append(prepare(config, chatml, tmp_path / supervise).figures["tokens_supervised"])
    assert counted == [
        sum(render_one(row, chatml, mode).supervised) for mode in ("answers", "last", "all")
    ]
    assert len(set(counted)) == 3


# Plain text.


@pytest.mark.parametrize("supervise", ["answers", "last", "all"])
def test_plain_text_is_learned_to_its_end_of_text_all_but_the_first_token(template, supervise):
    found = render_one(Text("The quick brown fox"), template, supervise)
    tokenizer = template.tokenizer
    assert tokenizer.decode(found.ids) == "<s>The quick brown fox</s>"
    assert found.supervised.tolist() == [False] + [True] * (len(found.ids) - 1)
    assert (found.prompt_tokens, found.stop_id) == (1, tokenizer.id_of("</s>"))
    assert as_messages(Text("t")) == []


def test_plain_text_without_a_token_before_it_does_not_learn_its_own_first(tmp_path):
    folder = build_tokenizer(tmp_path / "t", [t for t in SPECIAL if t != "<s>"], bos_token=None)
    tokenizer = load_tokenizer(folder)
    found = rendered(Text("The quick"), load_template("chatml", tokenizer))
    assert found.prompt_tokens == 0
    assert found.ids.tolist() == tokenizer.encode(["The quick</s>"])[0]
    assert found.supervised.tolist() == [False] + [True] * (len(found.ids) - 1)


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_empty_plain_text_is_refused(chatml, text):
    assert refused(Text(text), chatml).reason == "empty answer"


def test_special_tokens_in_plain_text_are_refused(chatml):
    for marker in SPECIAL:
        assert refused(Text(f"a {marker}"), chatml).reason == "special token in the text"


def test_plain_text_without_an_end_of_text_token_is_refused(tmp_path):
    tokenizer = load_tokenizer(build_tokenizer(tmp_path / "t", eos_token=None))
    found = refused(Text("t"), load_template("chatml", tokenizer))
    assert found.reason == "no end-of-text token"


def test_plain_text_answers_nothing_and_says_itself():
    row = Text("The fox")
    assert (prompt_text(row), response_text(row)) == ("", "The fox")
    assert whole_text(row) != whole_text(Completion("", "The fox"))
    assert prompt_hash(row) == prompt_hash(Text("the  FOX")) != prompt_hash(Text("the dog"))


# The law.


def plainly(row: Conversation, template: ChatTemplate, supervise: Supervise) -> list[bool] | None:
    """The mask, found as slowly and plainly as can be: every prompt encoded whole."""
    encode = template.tokenizer.encode
    ids = encode([template.text(row.as_dicts(), generation_prompt=False)])[0]
    mask = [supervise == "all" and index > 0 for index in range(len(ids))]
    answers = [turn for turn, message in enumerate(row.messages) if message.role == "assistant"]
    for turn in answers:
        prompt = encode([template.text(row.as_dicts()[:turn], generation_prompt=True)])[0]
        if ids[: len(prompt)] != prompt:
            return None
        flag = row.messages[turn].train and (supervise != "last" or turn == answers[-1])
        for index in range(len(prompt), ids.index(template.stop_id, len(prompt)) + 1):
            mask[index] = flag
    return mask


WORDS = st.text("ab .\n<|\u00e9\U0001f98a", min_size=1, max_size=6).filter(str.strip)
TURNS = st.lists(st.tuples(WORDS, WORDS, st.booleans()), min_size=1, max_size=5)


@given(TURNS, st.just("") | WORDS, st.sampled_from(["answers", "last", "all"]))
@settings(max_examples=60)
def test_masks_are_those_of_a_plain_reference(template, said, system, supervise):
    messages = [Message("system", system)] if system else []
    for question, answer, train in said:
        messages += [Message("user", question), Message("assistant", answer, train=train)]
    row = Conversation(tuple(messages))
    (found,) = render([row], template, supervise)
    expected = plainly(row, template, supervise)
    if isinstance(found, RowError):
        nothing = not any(train for *_, train in said[-1 if supervise == "last" else 0 :])
        assert found.reason == ("nothing supervised" if nothing else "answer runs into its prompt")
        assert nothing or expected is None
    else:
        assert found.supervised.tolist() == expected


def test_what_a_template_writes_around_answers_is_what_these_tests_say(template):
    """`learned` would hide an error in both otherwise."""
    before, after = AROUND.get(template.name, ("", ""))
    text = template.text(row_of("alpaca").as_dicts(), generation_prompt=False)
    assert f"{before}The quick brown fox.{after}{template.stop_token}" in text
