"""Which tokens of a row are supervised, and which rows are refused."""

import json
from dataclasses import replace

import pytest
from chat_rows import (
    CHATML,
    RECORDS,
    answers_of,
    as_lists,
    conversation,
    learned,
    refused,
    rendered,
    row_of,
    write_template,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizer import SPECIAL, build_tokenizer, supervised_runs

from data_prep.chat_templates import TemplateError, load_template
from data_prep.errors import RowError
from data_prep.formats.registry import CONVERTERS
from data_prep.rendering import Rendered, as_messages, render
from data_prep.rows import Completion, Conversation, Message
from data_prep.tokenizer import Tokenizer, load_tokenizer

ROLES = ("<|assistant|>", "<|system|>", "<|user|>")
WRITTEN = {
    "alpaca": ("### Instruction:", "### Response:"),
    "llama-2": ("[/INST]", "[INST]", "<<SYS>>", "<</SYS>>"),
    "mistral": ("[/INST]", "[INST]"),
    "phi": ROLES,
    "zephyr": ROLES,
}
"""Markers that a template writes as plain text."""


# The mask.


@pytest.mark.parametrize("name", RECORDS)
def test_supervised_is_each_answer_with_its_stop_token_and_nothing_else(template, name):
    row = row_of(name)
    runs = supervised_runs(rendered(row, template), template.tokenizer)
    assert runs == learned(template, answers_of(row))


@pytest.mark.parametrize("name", RECORDS)
def test_prompt_tokens_is_what_the_server_renders_before_the_last_answer(template, name):
    row = row_of(name)
    found = rendered(row, template)
    prompt = template.text(row.as_dicts()[:-1], generation_prompt=True)
    assert template.tokenizer.encode([prompt]) == [found.ids[: found.prompt_tokens].tolist()]
    assert found.supervised[found.prompt_tokens]
    assert as_messages(row) == row.as_dicts()[:-1]


def test_completion_is_supervised_to_the_end_of_text_and_its_prompt_is_not(template):
    row = CONVERTERS["completion"]({"prompt": "The capital of France is", "completion": " Paris."})
    found = rendered(row, template)
    tokenizer = template.tokenizer
    assert supervised_runs(found, tokenizer) == [" Paris.</s>"]
    served = tokenizer.backend.encode(row.prompt, add_special_tokens=True).ids
    assert found.ids[: found.prompt_tokens].tolist() == served
    assert tokenizer.decode(served) == "<s>The capital of France is"
    assert as_messages(row) == []


# Not what a template or the byte-level tokenizer would join with its surroundings.
SAID = st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"]), min_size=1, max_size=12)


@settings(max_examples=40)
@given(said=st.lists(SAID, min_size=2, max_size=6), system=st.just("") | SAID)
def test_users_and_systems_are_never_supervised_whatever_they_say(template, said, system):
    row = conversation(*said[: len(said) // 2 * 2], system=system)
    (found,) = render([row], template)
    if isinstance(found, RowError):
        assert found.reason == "special token in the text"
        return
    assert supervised_runs(found, template.tokenizer) == learned(template, answers_of(row))


@given(st.lists(st.tuples(SAID, SAID), max_size=4))
@settings(max_examples=20)
def test_rows_rendered_together_and_alone_are_the_same(chatml, pairs):
    rows = [conversation(*pair) for pair in pairs]
    alone = [render([row], chatml)[0] for row in rows]
    assert list(map(as_lists, render(rows, chatml))) == list(map(as_lists, alone))


def test_a_trailing_question_is_rendered_and_not_supervised(template):
    row = conversation("Who are you?", "An assistant.", "And?")
    found = rendered(row, template)
    assert len(supervised_runs(found, template.tokenizer)) == 1
    assert as_messages(row) == row.as_dicts()[:1]
    assert "And?" in template.tokenizer.decode(found.ids)


# The same text as transformers and so vLLM make.


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("generation_prompt", [True, False])
def test_ids_are_those_of_transformers(template, tokenizer_folder, name, generation_prompt):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)
    messages = row_of(name).as_dicts()
    messages = messages[:-1] if generation_prompt else messages
    ours = template.text(messages, generation_prompt=generation_prompt)
    expected = theirs.apply_chat_template(
        messages,
        chat_template=template.source,
        add_generation_prompt=generation_prompt,
        return_dict=False,
    )
    assert template.tokenizer.encode([ours]) == [expected]


# Rows that a template would train wrong.


def test_a_template_that_ends_only_the_last_answer_is_refused_for_several_turns(
    tokenizer, tmp_path
):
    """Otherwise the first answer would reach to the stop token of the last."""
    source = (
        "{% for message in messages %}{% if message['role'] == 'user' %}"
        "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ ' ' + message['content'] }}"
        "{% if loop.last %}{{ eos_token }}{% endif %}{% endif %}{% endfor %}"
    )
    template = load_template(write_template(tmp_path, source), tokenizer)
    assert isinstance(render([conversation("q", "a")], template)[0], Rendered)
    assert refused(conversation("q", "a", "r", "b"), template).reason == "stop token missing"


def test_a_template_that_ends_questions_but_not_early_answers_is_refused(tokenizer, tmp_path):
    source = CHATML.replace(
        "'<|im_end|>\\n'",
        "('<|im_end|>\\n' if message['role'] == 'user' or loop.last else '\\n')",
    )
    template = load_template(write_template(tmp_path, source), tokenizer)
    assert refused(conversation("q", "a", "r", "b"), template).reason == "stop token missing"


def test_a_template_that_ends_the_whole_text_with_one_more_token_is_accepted(tokenizer, tmp_path):
    source = CHATML.replace("{% endif %}", "{% else %}{{ eos_token }}{% endif %}")
    template = load_template(write_template(tmp_path, source), tokenizer)
    found = rendered(conversation("q", "a", "r", "b"), template)
    assert supervised_runs(found, tokenizer) == ["a<|im_end|>", "b<|im_end|>"]


def test_a_template_whose_early_turns_change_later_is_refused(tokenizer, tmp_path):
    source = CHATML.replace(
        "message['content'] +",
        "('' if loop.last or message['role'] == 'assistant' else 'old: ') + message['content'] +",
    )
    own = write_template(tmp_path, source)
    with pytest.raises(TemplateError, match="not prefix-stable"):
        load_template(own, tokenizer)
    source = source.replace("'old: '", "('old: ' if messages | length > 3 else '')")
    template = load_template(write_template(tmp_path, source), tokenizer)
    error = refused(conversation("q", "a", "r", "b"), template)
    assert error.reason == "template is not prefix-stable"


def test_a_template_that_doubles_the_beginning_only_with_a_system_message_is_refused(
    tokenizer, tmp_path
):
    source = (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ bos_token }}{% endif %}" + CHATML
    )
    template = load_template(write_template(tmp_path, source), tokenizer)
    assert isinstance(render([conversation("q", "a")], template)[0], Rendered)
    error = refused(conversation("q", "a", system="s"), template)
    assert error.reason == "doubled beginning-of-text token"


@pytest.mark.parametrize("system", ["Be brief.", "q", "user says"])
def test_a_template_that_drops_the_system_message_is_refused(tokenizer, tmp_path, system):
    source = CHATML.replace("in messages %}", "in messages if message['role'] != 'system' %}")
    template = load_template(write_template(tmp_path, source), tokenizer)
    error = refused(conversation("q, user says", "a", system=system), template)
    assert str(error) in (
        "template loses a message: what the system says is missing",
        "template loses a message: what the user says is missing",
    )


def test_a_template_that_refuses_a_role_refuses_the_row(tokenizer):
    row = Conversation(
        (
            *conversation("q", "a").messages,
            Message("tool", "result"),
            Message("assistant", "b"),
        )
    )
    for name in ("gemma", "mistral"):
        error = refused(row, load_template(name, tokenizer))
        assert error.reason == "refused by the chat template"


CALL = {
    "id": "call_0",
    "type": "function",
    "function": {"name": "weather", "arguments": {"city": "Paris"}},
}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {}}}
TOOL_ROW = Conversation(
    (
        Message("user", "Sunny?"),
        Message("assistant", "", (CALL,)),
        Message("tool", '{"sky": "clear"}'),
        Message("assistant", "Yes."),
    ),
    (WEATHER,),
)
TOOL_TEMPLATE = CHATML.replace(
    "{% for message",
    "{{ '<|im_start|>tools\\n' + (tools | tojson) + '<|im_end|>\\n' }}{% for message",
).replace(
    "message['content'] +",
    "(message.tool_calls | tojson if message.tool_calls else message['content']) +",
)


def test_no_known_template_writes_tools(template):
    """As the refusal and the documents say."""
    row = Conversation(conversation("q", "a").messages, (WEATHER,))
    assert refused(row, template).reason == "template loses the tools"


@pytest.mark.parametrize(
    ("row", "where"),
    [
        (TOOL_ROW, "text"),
        (Conversation(conversation("q", "a").messages, (WEATHER,)), "text"),
        (Conversation(TOOL_ROW.messages), "call"),
    ],
)
def test_tools_and_calls_that_a_template_does_not_render_are_refused(tokenizer, row, where):
    for name in ("chatml", "llama-3", "zephyr"):
        error = refused(row, load_template(name, tokenizer))
        assert str(error) == f"template loses the tools: 'weather' is not in the rendered {where}"


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
ADD = {"name": "add", "description": "Sums up\ntwo numbers.", "parameters": SCHEMA}


@pytest.mark.parametrize(
    ("written", "lost"),
    [
        ("", "'add' is not in the rendered text"),
        ("{{ 'tools' if tools }}", "'add' is not in the rendered text"),
        ("{{ tools[0].function.description if tools }}, adding", "'add' is not in the"),
        ("{{ tools[0].function.name if tools }}", "'city' is not in the rendered text"),
        (
            "{{ tools[0].function.name ~ tools[0].function.parameters | tojson if tools }}",
            "the description of 'add' is not in the rendered text",
        ),
        ("{{ tools | tojson if tools }}", ""),
        ("{{ tools if tools }}", ""),
        ("{{ 'You add and greet a city. Sums up two numbers.' if not tools }}", "'add' is not"),
    ],
)
def test_words_of_the_messages_do_not_stand_for_the_tools(tokenizer, tmp_path, written, lost):
    said = conversation("To add 1 in a city: add Sums up\ntwo numbers.", "add city", system="add")
    row = Conversation(said.messages, ({"type": "function", "function": ADD},))
    template = load_template(write_template(tmp_path, written + CHATML), tokenizer)
    if lost:
        assert str(refused(row, template)).startswith(f"template loses the tools: {lost}")
    else:
        rendered(row, template)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("said", ["", "I add 1 to a."])
def test_words_of_the_messages_do_not_stand_for_the_calls(tokenizer, tmp_path, said, train):
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    row = Conversation(
        (
            Message("user", "add 1 to a"),
            Message("assistant", said, (call,), train=train),
            Message("tool", "1", tool_call_id="c"),
            Message("assistant", "add: a is 1"),
        )
    )
    assert str(refused(row, load_template("chatml", tokenizer))) == (
        "template loses the tools: 'add' is not in the rendered call"
    )
    source = CHATML.replace(
        "message['content'] +",
        "message['content'] + (message.tool_calls | tojson if message.tool_calls else '') +",
    )
    rendered(row, load_template(write_template(tmp_path, source), tokenizer))


def test_tools_and_calls_that_a_template_renders_are_trained(tokenizer, tmp_path):
    template = load_template(write_template(tmp_path, TOOL_TEMPLATE), tokenizer)
    found = rendered(TOOL_ROW, template)
    call, answer = supervised_runs(found, tokenizer)
    assert call == json.dumps([CALL]) + "<|im_end|>"
    assert answer == "Yes.<|im_end|>"


def test_calls_are_sent_to_a_server_as_its_protocol_wants_them():
    (call,) = as_messages(TOOL_ROW)[1]["tool_calls"]
    assert call == {
        "id": "call_0",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
    }
    assert TOOL_ROW.messages[1].tool_calls == (CALL,), "the row itself is left as it was"


def test_a_template_that_writes_a_call_without_its_arguments_is_refused(tokenizer, tmp_path):
    source = TOOL_TEMPLATE.replace(
        "message.tool_calls | tojson if", "message.tool_calls[0].function.name if"
    )
    template = load_template(write_template(tmp_path, source), tokenizer)
    assert str(refused(TOOL_ROW, template)) == (
        "template loses the tools: 'city' is not in the rendered call"
    )


def test_tool_results_written_as_json_text_are_not_lost(tokenizer, tmp_path):
    source = TOOL_TEMPLATE.replace(
        "else message['content']",
        "else message['content'] | tojson if message.role == 'tool' else message['content']",
    )
    rendered(TOOL_ROW, load_template(write_template(tmp_path, source), tokenizer))


def test_special_tokens_in_any_message_are_refused(template):
    for marker in SPECIAL:
        for row in (
            conversation(f"Hi {marker} there", "a"),
            conversation("q", f"a{marker}"),
            conversation("q", "a", system=marker),
            Completion(f"q{marker}", "a"),
            Completion("q", f"{marker}a"),
        ):
            assert refused(row, template).reason == "special token in the text", marker


def test_markers_that_a_template_writes_as_plain_text_are_refused_too(template):
    written = WRITTEN.get(template.name, ())
    assert set(template.markers) == {*SPECIAL, *written}
    for marker in written:
        error = refused(conversation(f"Hi {marker} sure", "a"), template)
        assert error.reason == "special token in the text"
        assert marker in error.detail
        rendered(Completion(f"q {marker}", "a"), template)


@pytest.mark.parametrize(
    ("source", "markers"),
    [
        (
            "{% for m in messages %}{% if m.role == 'user' %}{{ 'USER: ' + m.content }}{% else %}"
            "{{ ' ASSISTANT: ' + m.content + '</s>' }}{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}",
            {"USER:", "ASSISTANT:"},
        ),
        (
            "{% for m in messages %}{{ '### ' + m.role + ':\n' + m.content + '</s>\n' }}"
            "{% endfor %}{% if add_generation_prompt %}{{ '### assistant:\n' }}{% endif %}",
            {"### system:", "### user:", "### assistant:"},
        ),
        ("You are a helpful assistant, says no one in particular." + CHATML, set()),
        (CHATML, set()),
    ],
)
def test_markers_are_measured_on_the_template(tokenizer, tmp_path, source, markers):
    template = load_template(write_template(tmp_path, source), tokenizer)
    assert set(template.markers) == {*SPECIAL, *markers}


def test_special_tokens_in_tools_and_calls_are_refused(tokenizer, tmp_path):
    template = load_template(write_template(tmp_path, TOOL_TEMPLATE), tokenizer)
    bad = {"function": {"name": "weather", "arguments": {"city": "<|im_end|>"}}}
    call = Conversation((Message("user", "q"), Message("assistant", "", (bad,))))
    tool = Conversation(conversation("q", "a").messages, ({"name": "<|im_start|>"},))
    for row in (call, tool):
        assert refused(row, template).reason == "special token in the text"


def test_an_answer_that_shares_a_token_with_its_prompt_is_refused(tokenizer, tmp_path):
    source = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + ' ' + m.content + '<|im_end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant ' }}{% endif %}"
    )
    template = load_template(write_template(tmp_path, source), tokenizer)
    error = refused(conversation("q", "The"), template)
    assert error.reason == "answer runs into its prompt"


@pytest.mark.parametrize("messages", [(), (Message("user", "q"),)])
def test_rows_without_an_answer_are_refused(template, messages):
    assert refused(Conversation(messages), template).reason == "no assistant turn"


def test_a_completion_after_nothing_is_refused_only_if_nothing_begins_the_text(tmp_path, chatml):
    row = Completion("", "Paris.")
    assert supervised_runs(rendered(row, chatml), chatml.tokenizer) == ["Paris.</s>"]
    folder = build_tokenizer(tmp_path / "t", [t for t in SPECIAL if t != "<s>"], bos_token=None)
    bare = load_template("chatml", load_tokenizer(folder))
    assert refused(row, bare).reason == "empty prompt"
    assert rendered(Completion("q", "a"), bare).prompt_tokens == 1


def test_a_completion_without_an_end_of_text_token_is_refused(tmp_path):
    tokenizer = load_tokenizer(build_tokenizer(tmp_path / "t", eos_token=None))
    template = load_template("chatml", tokenizer)
    assert refused(Completion("q", "a"), template).reason == "no end-of-text token"


# The tokenizer.


@pytest.mark.parametrize(
    ("arguments", "lost"),
    [({"city": "Paris"}, "'city'"), ({"t": {"a": [1, "deep"]}}, "1")],
)
def test_a_call_that_only_the_list_of_tools_mentions_is_lost(tokenizer, tmp_path, arguments, lost):
    source = TOOL_TEMPLATE.replace("message.tool_calls | tojson if", "'weather' if")
    template = load_template(write_template(tmp_path, source), tokenizer)
    call = CALL | {"function": {"name": "weather", "arguments": arguments}}
    tools = (
        {"type": "function", "function": {"name": "weather", "parameters": {"city": "Paris"}}},
    )
    row = Conversation((Message("user", "q"), Message("assistant", "", (call,))), tools)
    assert f"{lost} is not in the rendered call" in str(refused(row, template))


def test_values_of_calls_may_be_written_as_json_or_as_text(tokenizer, tmp_path):
    call = CALL | {"function": {"name": "f", "arguments": {"a": 'say "hi"', "b": True, "c": [1.5]}}}
    row = Conversation((Message("user", "q"), Message("assistant", "", (call,))))
    for written in ("message.tool_calls | tojson if", "message.tool_calls | string if"):
        source = TOOL_TEMPLATE.replace("message.tool_calls | tojson if", written)
        rendered(row, load_template(write_template(tmp_path, source), tokenizer))


def test_an_answer_of_which_only_the_stop_token_is_left_is_refused(tokenizer, tmp_path):
    source = CHATML.replace(
        "message['content']", "(message['content'] if not message.tool_calls else '')"
    )
    template = load_template(write_template(tmp_path, source), tokenizer)
    row = Conversation((Message("user", "q"), Message("assistant", "", (CALL,))))
    assert refused(row, template).reason == "template loses the tools"
    tools = ({"type": "function", "function": {"name": "weather", "parameters": {}}},)
    told = load_template(
        write_template(tmp_path, "{{ tools | tojson if tools }}" + source), tokenizer
    )
    assert refused(replace(row, tools=tools), told).reason == "template loses the tools"


def test_turns_marked_as_not_to_be_trained_are_context_only(template):
    first, second = Message("assistant", "one", train=False), Message("assistant", "two")
    row = Conversation((Message("user", "q"), first, Message("user", "r"), second))
    runs = supervised_runs(rendered(row, template), template.tokenizer)
    assert len(runs) == 1
    assert runs[0].strip().startswith("two")
    row = Conversation((Message("user", "q"), second, Message("user", "r"), first))
    assert as_messages(row) == [{"role": "user", "content": "q"}]
    row = Conversation((Message("user", "q"), first))
    assert refused(row, template).reason == "nothing supervised"


def test_a_completion_is_encoded_as_the_server_encodes_its_prompt(tmp_path):
    folder = build_tokenizer(tmp_path / "t")
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": "\u2581",
        "prepend_scheme": "first",
        "split": True,
    }
    content["decoder"] = {**content["pre_tokenizer"]}
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    tokenizer = load_tokenizer(folder)
    found = rendered(Completion("Paris", "Rome"), load_template("chatml", tokenizer))
    served = tokenizer.backend.encode("Paris").ids
    assert found.ids[: found.prompt_tokens].tolist() == served


@given(st.lists(st.text("ab .\n<|\u00e9", min_size=1, max_size=6), min_size=2, max_size=14))
@settings(max_examples=60)
def test_every_answer_begins_where_the_server_would_begin_it(chatml, said):
    row = conversation(*said[: len(said) // 2 * 2])
    (found,) = render([row], chatml)
    if isinstance(found, RowError):
        return
    starts = [
        index
        for index, flag in enumerate(found.supervised)
        if flag and not found.supervised[index - 1]
    ]
    turns = [turn for turn, message in enumerate(row.messages) if message.role == "assistant"]
    for start, turn in zip(starts, turns, strict=True):
        prompt = chatml.text(row.as_dicts()[:turn], generation_prompt=True)
        assert chatml.tokenizer.encode([prompt])[0] == found.ids[:start].tolist()


def test_a_hundred_turns_cost_little_more_than_their_length(template, monkeypatch):
    encoded: list[int] = []
    original = Tokenizer.encode

    def counting(self, texts):
        encoded.extend(map(len, texts))
        return original(self, texts)

    monkeypatch.setattr(Tokenizer, "encode", counting)
    row = conversation(*(f"turn {i}" for i in range(200)))
    whole = len(template.text(row.as_dicts(), generation_prompt=False))
    rendered(row, template)
    assert sum(encoded) < 4 * whole
