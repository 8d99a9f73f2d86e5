import json
from collections import Counter
from pathlib import Path

import pytest

from data_prep.errors import MOST_DETAIL, RowError
from data_prep.formats.detection import RULES, Detected, detect
from data_prep.formats.registry import CONVERTERS
from data_prep.formats.unused import KNOWN_FIELDS, used_fields
from data_prep.formats.writing import WRITERS, write_record
from data_prep.reading import ReadRow, Unusable, read_row, read_rows
from data_prep.sources.config import SourceConfig
from data_prep.sources.records import Record

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.mark.parametrize(
    ("record", "name", "because"),
    [
        ({"instruction": "q", "output": "a"}, "alpaca", "it has 'instruction' and 'output'"),
        (
            {"instruction": "q", "input": "", "output": "a"},
            "alpaca",
            "it has 'instruction' and 'output'",
        ),
        ({"messages": [], "tools": []}, "openai", "it has 'messages'"),
        ({"messages": [], "prompt": "q"}, "openai", "it has 'messages'"),
        (
            {"messages": [], "conversations": []},
            "openai",
            "it has 'messages' (openai goes before sharegpt)",
        ),
        ({"messages": None, "conversations": []}, "sharegpt", "it has 'conversations'"),
        ({"messages": None}, "openai", "it has 'messages'"),
        (
            {"instruction": "q", "response": "a", "output": "b"},
            "alpaca",
            "it has 'instruction' and 'output' (alpaca goes before dolly)",
        ),
        ({"instruction": "q", "response": "a"}, "dolly", "it has 'instruction' and 'response'"),
        (
            {"prompt": "q", "completion": "a", "text": "qa"},
            "completion",
            "it has 'prompt' and 'completion'",
        ),
        (
            {"text": "### Human: q"},
            "guanaco",
            "its 'text' begins with '### Human:' or '### Assistant:', and it has 'text'",
        ),
        (
            {"input": "### Human: q ### Assistant:", "output": "a", "prompt": "q", "text": "t"},
            "guanaco",
            "its 'input' begins with '### Human:' or '### Assistant:', and it has 'input' and "
            "'output'",
        ),
        ({"question": "q", "answer": "a"}, "qa", "it has 'question' and 'answer'"),
        ({"inputs": "q", "targets": "a"}, "qa", "it has 'inputs' and 'targets'"),
        (
            {"text": "a page", "url": "u", "meta": {"x": 1}, "n": 5},
            "text",
            "it has no other field that could be learned, and it has 'text'",
        ),
        (
            {"messages": [], "chosen": [], "rejected": []},
            "preference",
            "it has 'chosen' and 'rejected'",
        ),
        (
            {"messages": [], "label": False},
            "kto",
            "its 'label' says whether the answer is good, and it has 'messages'",
        ),
        (
            {"messages": [], "label": 0.0},
            "kto",
            "its 'label' says whether the answer is good, and it has 'messages'",
        ),
        (
            {"prompt": "q", "completion": "a", "label": "Undesirable"},
            "kto",
            "its 'label' says whether the answer is good, and it has 'prompt' and 'completion'",
        ),
        ({"messages": [], "label": 0.5}, "openai", "it has 'messages'"),
        ({"messages": [], "label": "sports"}, "openai", "it has 'messages'"),
        (
            {"instruction": "q", "output": "a", "chosen": None, "rejected": None, "label": None},
            "alpaca",
            "it has 'instruction' and 'output'",
        ),
    ],
)
def test_a_format_is_told_from_the_fields_with_the_reason(record, name, because):
    found = detect(record)
    assert (found.format, found.because) == (name, because)


@pytest.mark.parametrize(
    ("record", "hint"),
    [
        ({}, "fields none; formats: alpaca, sharegpt, openai"),
        ({"instruction": "q"}, "nearest: alpaca (lacks 'output'), dolly (lacks 'response')"),
        ({"conversation": []}, "nearest: is 'conversation' meant to be 'conversations'?"),
        ({"instrution": "q", "reponse": "a"}, "is 'instrution' meant to be 'instruction'?"),
        ({"text": "a", "frage": "q"}, "text, were it not for 'frage': say so with format: text"),
        ({"chosen": "a"}, "nearest: preference (lacks 'rejected')"),
        ({f"f{i:02}": 1 for i in range(99)}, "f07 and 91 more; formats: alpaca"),
    ],
)
def test_an_unknown_format_names_the_fields_and_the_nearest_formats(record, hint):
    with pytest.raises(RowError) as caught:
        detect(record)
    assert caught.value.reason == "unknown format"
    assert hint in caught.value.detail
    assert len(caught.value.detail) < MOST_DETAIL


def test_each_format_has_a_rule_and_a_rule_asks_for_fields_that_its_format_reads():
    assert {rule.format for rule in RULES} == set(CONVERTERS)
    for rule in RULES:
        record = dict.fromkeys(rule.fields, "true")
        assert set(rule.fields) <= set(used_fields(record, rule.format)) <= KNOWN_FIELDS, rule


def rows_of(path: Path, format_name: str = "auto") -> list:
    return list(read_rows(SourceConfig(path=str(path), format=format_name), "refuse"))


def test_a_source_says_why_it_was_read_as_what_it_was(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"instruction": "q", "output": "a"}\n' * 2, encoding="utf-8")
    because = "it has 'instruction' and 'output'"
    assert [(row.format, row.because) for row in rows_of(path)] == [
        ("alpaca (from its fields)", because)
    ] * 2
    assert [(row.format, row.because) for row in rows_of(path, "alpaca")] == [("alpaca", "")] * 2


def test_rows_of_every_kind_are_checked_as_they_are_read(tmp_path):
    path = tmp_path / "r.jsonl"
    records = [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"prompt": "q", "chosen": "a", "rejected": "a"},
        {"prompt": "q", "chosen": "", "rejected": "a"},
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    rows = rows_of(path)
    assert isinstance(rows[0], ReadRow)
    assert [row.error.reason for row in rows[1:]] == ["equal answers", "empty answer"]


@pytest.mark.parametrize(
    ("path", "name", "rows", "kind"),
    [
        ("alpaca_en_demo/alpaca_en_demo.json", "alpaca", 999, "Conversation"),
        ("identity/identity.json", "alpaca", 91, "Conversation"),
        ("dpo_en_demo/dpo_en_demo.json", "preference", 300, "Preference"),
        ("kto_en_demo/kto_en_demo_half_a.json", "kto", 156, "Labelled"),
        ("glaive_toolcall_en_demo/glaive_toolcall_en_demo.json", "sharegpt", 300, "Conversation"),
        ("sharegpt_dummy/dummy_conversation.json", "sharegpt", 500, "Conversation"),
        ("oasst_samples/oasst_half_a.jsonl", "guanaco", 489, "Conversation"),
        ("self_instruct_seed/seed_tasks.jsonl", "self_instruct", 175, "Conversation"),
        ("gsm8k_train/train.jsonl", "qa", 7473, "Conversation"),
        ("mmlu_val/mmlu_val_half_a.jsonl", "qa", 781, "Conversation"),
        ("c4_demo/c4_demo.jsonl", "text", 300, "Text"),
    ],
)
def test_real_files_are_recognised_read_whole_and_written_without_loss(path, name, rows, kind):
    if not (SHARED / path).is_file():
        pytest.skip(f"{SHARED / path} is not here")
    found = rows_of(SHARED / path)
    counted = Counter((row.format, type(row.row).__name__, bool(row.because)) for row in found)
    assert counted == {(f"{name} (from its fields)", kind, True): rows}
    target = {"self_instruct": "openai"}.get(name, name)
    assert target in WRITERS
    for row in found[:500]:
        assert write_record(row.row, target)  # reads what it wrote, and refuses any difference


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("human_eval/HumanEval_even.jsonl", "completion (lacks 'completion')"),
        ("vicuna_bench/question.jsonl", "fields category, question_id, turns; formats"),
        ("judge_prompts/judge_prompts.jsonl", "fields category, description, name"),
    ],
)
def test_real_files_that_hold_no_answers_are_refused(path, hint):
    if not (SHARED / path).is_file():
        pytest.skip(f"{SHARED / path} is not here")
    found = rows_of(SHARED / path)
    assert {row.error.reason for row in found} == {"unknown format"}
    assert hint in found[0].error.detail


def test_a_row_of_another_format_than_the_first_says_what_it_looks_like(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"instruction": "q", "output": "a"}\n', encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"question": "q", "answer": "a"}\n', encoding="utf-8")
    first, other = rows_of(tmp_path)
    assert isinstance(first, ReadRow)
    assert other.error.detail.endswith(
        "it looks like qa: the source is read as alpaca: give such rows a source of their own"
    )
    other = rows_of(tmp_path / "b.jsonl", "alpaca")[0]
    assert other.error.detail.endswith("it looks like qa: set the source's format to qa")


def test_turns_that_merging_would_join_say_so_and_others_do_not(tmp_path):
    path = tmp_path / "r.jsonl"
    orders = ["user assistant assistant", "assistant user assistant", "user user system assistant"]
    records = [[{"role": role, "content": "x"} for role in o.split()] for o in orders]
    path.write_text("".join(json.dumps({"messages": r}) + "\n" for r in records))
    twice, *others = [row.error for row in rows_of(path)]
    assert twice.detail == ("'assistant' follows 'assistant'; roles: merge would join such turns")
    assert not any("merge" in str(error) for error in others)


def test_a_label_that_may_be_a_category_says_what_to_do(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"text": "a film", "label": 1}\n', encoding="utf-8")
    assert "if 'label' means something else, rename that field" in rows_of(path)[0].error.detail


@pytest.mark.parametrize("depth", range(940, 1000, 4))
def test_values_nested_too_deep_for_python_never_end_the_reading(depth):
    value: object = []
    for _ in range(depth):
        value = [value]
    for field in ("label", "messages", "prompt"):
        record = Record("r:1", {"prompt": "q", "completion": "a"} | {field: value})
        for chosen in ("auto", "kto", "completion"):
            found = read_row(record, chosen, Detected(chosen, ""), "refuse")
            assert chosen != "kto" or isinstance(found, Unusable)
