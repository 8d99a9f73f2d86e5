"""Which templates are accepted, and what is measured on them."""

import json
from datetime import date

import pytest
from chat_rows import CHATML, STOP, TEMPLATES, write_template
from tiny_tokenizer import SPECIAL, build_tokenizer

from data_prep.chat_templates import ChatTemplate, TemplateError, known_templates, load_template
from data_prep.errors import DataError
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
        (CHATML.replace("<|im_end|>", "<|end|>"), "does not begin with a special token"),
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
    with pytest.raises(TemplateError, match=r"neither a known name \(chatml, gemma, llama-3"):
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
    with pytest.raises(TemplateError, match="writes today's date"):
        load_template(write_template(tmp_path, source), tokenizer, date(2024, 7, 26))
