"""Which templates are accepted, and what is measured on them."""

import json
import pickle
from datetime import date

import pytest
from chat_rows import CHATML, STOP, TEMPLATES, as_lists, conversation, rendered, write_template
from tiny_tokenizer import SPECIAL, build_tokenizer, supervised_runs

from data_prep.chat_templates import ChatTemplate, TemplateError, known_templates, load_template
from data_prep.errors import DataError, RowError
from data_prep.rendering import render
from data_prep.rows import Completion, Text
from data_prep.template_engine import compile_template
from data_prep.tokenizer import load_tokenizer


def test_filters_and_blocks_of_templates_are_those_of_transformers(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    source = (
        "{{ bos_token }}{% for message in messages %}\n  {% if loop.index > 9 %}{% break %}"
        "{% endif %}{{ message | tojson(separators=(',', ':'), sort_keys=True) }}\n"
        "{{- messages | tojson(indent=2) }}{{ message | tojson(ensure_ascii=True) }}"
        "{% generation %}{{ message['content'] }}{{ '</s>' }}{% endgeneration %}{% endfor %}"
        "{{ strftime_now('%Y') }}{{ pad_token }}{{ nothing is defined }}"
    )
    template = load_template("chatml", tokenizer)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tokenizer.folder)
    messages = [{"role": "user", "content": "<ä> & \U0001f98a"}]
    own = ChatTemplate("own", source, tokenizer, template.stop_id, compile_template(source)).text(
        messages, generation_prompt=False
    )
    expected = theirs.apply_chat_template(messages, chat_template=source, tokenize=False)
    assert own == expected


# The known templates, byte by byte as they are published.

ROLE_TURNS = "<|system|>\nSYS{end}<|user|>\nQ1{end}<|assistant|>\nA1{end}<|user|>\nQ2{end}"
PUBLISHED = {
    "alpaca": (
        "<s>SYS\n\n### Instruction:\nQ1\n\n### Response:\nA1</s>\n\n### Instruction:\nQ2\n\n",
        "### Response:\n",
        "### Response:\nA2</s>\n\n",
    ),
    "chatml": (
        "<|im_start|>system\nSYS<|im_end|>\n<|im_start|>user\nQ1<|im_end|>\n"
        "<|im_start|>assistant\nA1<|im_end|>\n<|im_start|>user\nQ2<|im_end|>\n",
        "<|im_start|>assistant\n",
        "<|im_start|>assistant\nA2<|im_end|>\n",
    ),
    "gemma": (
        "<s><start_of_turn>user\nSYS\n\nQ1<end_of_turn>\n<start_of_turn>model\nA1<end_of_turn>\n"
        "<start_of_turn>user\nQ2<end_of_turn>\n",
        "<start_of_turn>model\n",
        "<start_of_turn>model\nA2<end_of_turn>\n",
    ),
    "llama-2": (
        "<s>[INST] <<SYS>>\nSYS\n<</SYS>>\n\nQ1 [/INST] A1 </s><s>[INST] Q2 [/INST]",
        "",
        " A2 </s>",
    ),
    "llama-3": (
        "<s><|start_header_id|>system<|end_header_id|>\n\nSYS<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nQ1<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nA1<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nQ2<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|start_header_id|>assistant<|end_header_id|>\n\nA2<|eot_id|>",
    ),
    "mistral": ("<s>[INST] SYS\n\nQ1 [/INST] A1</s>[INST] Q2 [/INST]", "", " A2</s>"),
    "phi": (
        ROLE_TURNS.format(end="<|end|>\n"),
        "<|assistant|>\n",
        "<|assistant|>\nA2<|end|>\n</s>",
    ),
    "zephyr": (
        ROLE_TURNS.format(end="</s>\n"),
        "<|assistant|>\n",
        "<|assistant|>\nA2</s>\n",
    ),
}
"""The turns before the last answer, the generation prompt, and the last answer.

Sources: the model cards and tokenizer settings of Llama-2-chat, Llama-3-Instruct,
Mistral-7B-Instruct, gemma-it (its system message as Gemma 3 has it), zephyr-7b-beta,
Phi-3-mini-instruct, the Qwen family for chatml, and Stanford Alpaca's training prompt.
"""


def test_known_templates_write_what_is_published(template):
    before, asked, answered = PUBLISHED[template.name]
    said = [("system", "SYS"), ("user", "Q1"), ("assistant", "A1"), ("user", "Q2")]
    messages = [{"role": role, "content": content} for role, content in said]
    assert template.text(messages, generation_prompt=True) == before + asked
    messages.append({"role": "assistant", "content": "A2"})
    assert template.text(messages, generation_prompt=False) == before + answered


def test_alpaca_without_a_system_message_begins_with_the_published_one(tokenizer):
    template = load_template("alpaca", tokenizer)
    text = template.text([{"role": "user", "content": "Q"}], generation_prompt=True)
    assert text == (
        "<s>Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nQ\n\n### Response:\n"
    )


@pytest.mark.parametrize("name", ["alpaca", "gemma", "llama-2", "mistral", "phi"])
def test_known_templates_without_tool_turns_refuse_them(tokenizer, name):
    template = load_template(name, tokenizer)
    messages = [{"role": "user", "content": "Q"}, {"role": "tool", "content": "R"}]
    with pytest.raises(RowError, match="renders system, user and assistant turns only"):
        template.text(messages, generation_prompt=False)


def test_phi_is_accepted_on_a_tokenizer_whose_turn_tokens_swallow_white_space(tmp_path):
    """As Phi-3's do: the newline behind ``<|assistant|>`` is no token of its own."""
    turns = [f"<|{role}|>" for role in ("system", "user", "assistant")]
    folder = build_tokenizer(tmp_path / "t", [*SPECIAL, *turns, "<|endoftext|>"])
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    for token in content["added_tokens"]:
        token["rstrip"] = token["content"] in (*turns, "<|end|>")
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    tokenizer = load_tokenizer(folder)
    template = load_template("phi", tokenizer)
    assert template.stop_token == "<|end|>"
    found = rendered(conversation("Q1", "A1", "Q2", "A2", system="SYS"), template)
    assert supervised_runs(found, tokenizer) == ["A1<|end|>", "A2<|end|>"]
    assert "\n" not in tokenizer.decode(found.ids)


def test_a_template_renders_the_same_after_a_journey_to_another_process(template):
    rows = [conversation("Q1", "A1", "Q2", "A2"), Completion("q", "a"), Text("t")]
    expected, markers = list(map(as_lists, render(rows, template))), template.markers
    other = pickle.loads(pickle.dumps(template))
    assert list(map(as_lists, render(rows, other))) == expected
    assert other.markers == markers
    assert (other.stop_id, other.source) == (template.stop_id, template.source)
    with pytest.raises(RowError, match="refused by the chat template"):
        other.text([{"role": ["unhashable"], "content": {}.keys()}], generation_prompt=False)


# Which templates are accepted.


def test_the_templates_that_come_with_llmkit_are_these():
    assert known_templates() == TEMPLATES


def test_stop_token_is_the_one_that_ends_an_answer(template):
    assert template.stop_token == STOP[template.name]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            CHATML.replace("+ '<|im_end|>\\n' }}", "+ '\\n' }}"),
            r"ends an assistant turn with '\\n', which does not begin with a special token",
        ),
        (CHATML.replace("<|im_end|>", "<|over|>"), "does not begin with a special token"),
        (CHATML.replace("message['content']", "'nothing'"), "drops what a turn says"),
        ("{{ bos_token }}" * 2 + CHATML, r"beginning-of-text token '<s>' twice"),
        (CHATML.replace("assistant\\n' }}", "assistant\\n<think>\\n' }}"), "not prefix-stable"),
        (CHATML.split("{% if add_gen")[0], "has no generation prompt"),
        ("{% for message in messages %}", r"line 1: .*"),
        ("{{ messages | nofilter }}", "No filter named 'nofilter'"),
        ("{{ raise_exception('never') }}", "cannot render a plain turn: .*never"),
        ("{{ messages[9]['content'] }}", "cannot render a plain turn"),
        ("{{ 1 // 0 }}", "cannot render a plain turn: .*ZeroDivisionError"),
        ("{{ ''.join([1]) }}", "cannot render a plain turn: .*TypeError"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "cannot render a plain turn"),
        ("{{ messages.__class__.__mro__ }}", "cannot render a plain turn"),
        ("", "drops what a turn says"),
    ],
)
def test_a_template_that_cannot_be_trained_with_is_refused(tokenizer, tmp_path, source, message):
    with pytest.raises(TemplateError, match=message):
        load_template(write_template(tmp_path, source), tokenizer)


def test_a_stop_token_that_only_becomes_the_unknown_token_is_refused(tmp_path):
    folder = build_tokenizer(tmp_path / "t", unk_token="<unk>")
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["pre_tokenizer"] = {"type": "WhitespaceSplit"}
    content["model"] |= {"unk_token": "<unk>", "merges": [], "vocab": dict.fromkeys(SPECIAL)}
    content["model"]["vocab"] = {token: i for i, token in enumerate([*SPECIAL, *"abcdefgh"])}
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    own = write_template(tmp_path, CHATML.replace("<|im_end|>", "xyz"))
    with pytest.raises(TemplateError, match="does not begin with a special token"):
        load_template(own, load_tokenizer(folder))


@pytest.mark.parametrize("choice", ["chatmI", "missing.jinja", "", "../templates", "."])
def test_a_template_that_is_nowhere_is_refused_with_the_known_names(tokenizer, choice):
    with pytest.raises(TemplateError, match=r"neither a known name \(alpaca, chatml, gemma, ll"):
        load_template(choice, tokenizer)


def test_keep_wants_a_template_in_the_model_folder(tokenizer):
    with pytest.raises(TemplateError, match="the model carries no chat template"):
        load_template("keep", tokenizer)


@pytest.mark.parametrize("spelling", [CHATML, [{"name": "default", "template": CHATML}, {}, 5]])
def test_keep_takes_the_template_of_the_tokenizer_settings(tmp_path, spelling):
    tokenizer = load_tokenizer(build_tokenizer(tmp_path / "t", chat_template=spelling))
    assert load_template("keep", tokenizer).source == CHATML


def test_keep_prefers_the_file_to_the_setting(tmp_path):
    folder = build_tokenizer(tmp_path / "t", chat_template="{{ 'old' }}")
    (folder / "chat_template.jinja").write_text(CHATML, encoding="utf-8")
    assert load_template("keep", load_tokenizer(folder)).source == CHATML


def test_a_template_that_is_not_utf8_is_refused(tokenizer, tmp_path):
    (tmp_path / "own.jinja").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"own\.jinja: not UTF-8"):
        load_template(str(tmp_path / "own.jinja"), tokenizer)


# Templates that write the date.

DATED = CHATML.replace(
    "{% for", "{{ '<|im_start|>system\\n' + strftime_now('%d %b %Y') + '<|im_end|>\\n' }}{% for", 1
)


def test_a_template_that_writes_todays_date_is_refused_until_a_date_is_set(tokenizer, tmp_path):
    own = write_template(tmp_path, DATED)
    with pytest.raises(TemplateError, match=r"writes today.s date.*model\.template_date"):
        load_template(own, tokenizer)
    template = load_template(own, tokenizer, date(2024, 7, 26))
    text = template.text([{"role": "user", "content": "q"}], generation_prompt=True)
    assert text.startswith("<|im_start|>system\n26 Jul 2024<|im_end|>\n<|im_start|>user")


def test_the_saved_template_writes_the_date_in_transformers_too(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    template = load_template(write_template(tmp_path, DATED), tokenizer, date(2024, 7, 26))
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tokenizer.folder)
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert template.text(messages, generation_prompt=False) == theirs.apply_chat_template(
        messages, chat_template=template.source, tokenize=False
    )


def test_a_date_in_a_computed_format_cannot_be_fixed(tokenizer, tmp_path):
    source = DATED.replace("'%d %b %Y'", "'%d' + ' %b'")
    with pytest.raises(TemplateError, match="writes today's date in a format that it computes"):
        load_template(write_template(tmp_path, source), tokenizer, date(2024, 7, 26))


def test_a_date_by_another_name_cannot_be_fixed(tokenizer, tmp_path):
    source = "{% set now = strftime_now %}{{ now('%d') }}" + CHATML
    for day in (None, date(2024, 7, 26)):
        with pytest.raises(TemplateError, match="calls strftime_now by another name"):
            load_template(write_template(tmp_path, source), tokenizer, day)


def test_a_template_may_ask_whether_there_is_a_date(tokenizer, tmp_path):
    source = "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% endif %}" + CHATML
    template = load_template(write_template(tmp_path, source), tokenizer, date(2024, 7, 26))
    assert template.text([], generation_prompt=False).startswith("2024")


@pytest.mark.parametrize("chance", ["{{ [1, 2, 3] | random }}", "{{ lipsum() }}"])
def test_a_template_that_leaves_its_text_to_chance_is_refused(tokenizer, tmp_path, chance):
    with pytest.raises(TemplateError, match=r"random|lipsum"):
        load_template(write_template(tmp_path, chance + CHATML), tokenizer)
