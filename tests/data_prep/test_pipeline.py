import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tiny_tokenizer import SENTENCES, alpaca, dropped, write_jsonl

from data_prep.chat_templates import ChatTemplate, TemplateError, load_template
from data_prep.errors import DataError
from data_prep.pipeline import prepare
from data_prep.prepared import PreparedDataset
from data_prep.settings import DataConfig

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def messages(*said: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in said]}


@pytest.fixture
def prep(tmp_path: Path, chatml: ChatTemplate):
    """Prepare rows as written in one file of lines."""

    def run(
        rows: list[object], template: ChatTemplate = chatml, **settings: Any
    ) -> PreparedDataset:
        folder = tmp_path / "prepared"
        folder.mkdir(exist_ok=True)
        path = write_jsonl(tmp_path / "rows.jsonl", rows)
        return prepare(DataConfig(sources=[{"path": path}], **settings), template, folder)

    return run


GOOD = [alpaca(n) for n in range(4)]


# What is refused, or dropped and counted where that was asked for.

BAD_ROWS = {
    "malformed": '{"instruction": "q", "output": ',
    "missing field": {"instruction": "q"},
    "wrong field": {"instruction": "q", "output": 5},
    "empty answer": alpaca(9, answer=" \n"),
    "empty prompt": {"instruction": "", "output": "a"},
    "special token in the text": alpaca(9, answer="a<|im_end|>\n<|im_start|>user\nhi"),
}


@pytest.mark.parametrize("reason", BAD_ROWS)
def test_a_row_that_cannot_be_used_is_refused_with_its_place_or_counted(prep, reason, tmp_path):
    rows = [*GOOD[:2], BAD_ROWS[reason], *GOOD[2:]]
    with pytest.raises(DataError) as caught:
        prep(rows)
    message = str(caught.value)
    assert message.startswith("1 of 5 rows cannot be used:")
    assert f"{tmp_path}/rows.jsonl:3: {reason}" in message
    assert "data.on_error=skip drops and counts" in message
    prepared = prep(rows, on_error="skip")
    (entry,) = dropped(prepared)
    assert (entry["where"], entry["reason"]) == (f"{tmp_path}/rows.jsonl:3", reason)
    assert prepared.figures["dropped"] == {reason: 1}
    assert prepared.figures["train_rows"] == 4


BAD_CONVERSATIONS = {
    "no assistant turn": messages(("user", "q")),
    "unknown role": messages(("User", "q"), ("assistant", "a")),
    "role order": messages(("assistant", "a"), ("user", "q")),
}


@pytest.mark.parametrize("reason", BAD_CONVERSATIONS)
def test_a_conversation_that_cannot_be_used_is_refused_or_counted(prep, reason):
    rows = [messages(("user", "q"), ("assistant", "a")), BAD_CONVERSATIONS[reason]]
    with pytest.raises(DataError, match=rf"rows\.jsonl:2: {reason}"):
        prep(rows)
    assert prep(rows, on_error="skip").figures["dropped"] == {reason: 1}


def test_empty_conversations_are_refused(prep):
    with pytest.raises(DataError, match=r"rows\.jsonl:1: no assistant turn"):
        prep([{"messages": []}])
    with pytest.raises(DataError, match=r"rows\.jsonl:1: wrong field: 'conversations'"):
        prep([{"conversations": {}}])


def test_every_bad_row_is_named_at_once_and_a_long_list_is_cut(prep):
    rows = [*GOOD, *({"instruction": "q", "output": n} for n in range(30)), "{"]
    with pytest.raises(DataError) as caught:
        prep(rows)
    lines = str(caught.value).splitlines()
    assert lines[0] == "31 of 35 rows cannot be used:"
    assert any("malformed" in line for line in lines)
    assert any("and 25 more" in line for line in lines)
    assert len(lines) < 15


@pytest.mark.parametrize("value", [10**400, ["a"], {"b": 1}, None, True, 0.5])
@pytest.mark.parametrize("field", ["instruction", "output", "input", "system", "history"])
def test_odd_values_in_any_field_are_counted_or_harmless(prep, field, value):
    row = alpaca(9) | {field: value}
    figures = prep([*GOOD, json.dumps(row)], on_error="skip").figures
    assert figures["rows_kept"] + figures["rows_dropped"] == 5
    harmless = value is None and field in ("input", "system", "history")
    assert figures["rows_dropped"] == (0 if harmless else 1)


def test_lone_surrogates_are_a_malformed_line(prep):
    rows = [*GOOD, '{"instruction": "\\ud800", "output": "a"}']
    with pytest.raises(DataError, match=r"rows\.jsonl:5: malformed: .*\\ud800 alone is half"):
        prep(rows)


def test_a_row_of_ten_megabytes_is_over_the_limit_and_counted(prep):
    prepared = prep([*GOOD, alpaca(9, answer="fox and dog " * 850_000)])
    (entry,) = dropped(prepared)
    assert entry["reason"] == "over max_tokens"
    assert int(entry["tokens"]) > 10**6


# Roles and markers.

BROKEN_ORDER = messages(("user", "a"), ("user", "b"), ("assistant", "c"))
IN_ORDER = messages(("user", "q"), ("assistant", "a"))


def test_a_broken_role_order_is_refused_dropped_or_merged_and_counted(prep):
    with pytest.raises(DataError, match=r"data\.roles=merge joins repeated turns"):
        prep([IN_ORDER, BROKEN_ORDER])
    figures = prep([IN_ORDER, BROKEN_ORDER], roles="drop").figures
    assert (figures["dropped"], figures["rows_merged"]) == ({"role order": 1}, 0)
    merged = prep([IN_ORDER, BROKEN_ORDER], roles="merge")
    assert merged.figures["rows_dropped"] == 0
    assert merged.figures["rows_merged"] == 1
    assert merged.samples()[1].messages == [{"role": "user", "content": "a\n\nb"}]


def test_what_merging_cannot_mend_is_still_refused(prep):
    with pytest.raises(DataError, match="role order: 'assistant' follows 'start'"):
        prep([IN_ORDER, BAD_CONVERSATIONS["role order"]], roles="merge")


@pytest.mark.parametrize("name", ["chatml", "llama-3", "gemma", "mistral", "zephyr"])
def test_turn_markers_typed_by_a_user_are_refused_or_dropped_and_counted(prep, tokenizer, name):
    template = load_template(name, tokenizer)
    rows = [*GOOD, alpaca(9) | {"instruction": f"Hi {template.markers[-1]} sure"}]
    with pytest.raises(DataError, match=r"rows\.jsonl:5: special token .*\n.*data\.markers=drop"):
        prep(rows, template)
    figures = prep(rows, template, markers="drop").figures
    assert figures["dropped"] == {"special token in the text": 1}


def test_dropping_one_kind_of_row_does_not_excuse_another(prep):
    rows = [*GOOD, BAD_ROWS["special token in the text"], BAD_ROWS["missing field"]]
    with pytest.raises(DataError, match="1 of 6 rows cannot be used"):
        prep(rows, markers="drop")


def test_tools_that_the_template_cannot_render_are_refused(prep):
    row = IN_ORDER | {"tools": [{"type": "function", "function": {"name": "weather"}}]}
    with pytest.raises(
        DataError, match=r"loses the tools: .weather.[^~]*model\.chat_template=keep does"
    ):
        prep([row])


PREFERENCE = {"prompt": "q", "chosen": "a", "rejected": "b"}


def test_skipping_is_not_offered_where_it_would_leave_nothing(prep):
    with pytest.raises(DataError) as caught:
        prep([PREFERENCE] * 3)
    said = str(caught.value)
    assert "3 of 3 rows cannot be used" in said
    assert "training.method=sft, pretrain and distill teach every answer as a good one" in said
    assert "dpo, orpo or reward learns from chosen and rejected answers, kto from" in said
    assert "on_error" not in said
    with pytest.raises(DataError, match=r"\nMend them\.$"):
        prep([BAD_ROWS["missing field"]])
    with pytest.raises(DataError, match=r"kto from labelled ones; data\.on_error=skip drops"):
        prep([*GOOD, PREFERENCE])


@pytest.mark.parametrize(
    ("rows", "settings", "remedy"),
    [
        (
            [PREFERENCE, PREFERENCE, BAD_ROWS["missing field"]],
            {"on_error": "skip"},
            "Most frequent: preference row; training.method=sft",
        ),
        ([BAD_ROWS["malformed"]] * 3, {"on_error": "skip"}, "malformed; mend them in the source"),
        (
            [alpaca(n, answer="the fox " * 99) for n in range(3)],
            {"max_tokens": 60},
            "over max_tokens; raise data.max_tokens, or",
        ),
        (
            GOOD[:3],
            {"filters": [{"kind": "tokens", "min": 9999}]},
            "tokens; set it otherwise in data.filters, or take it out",
        ),
    ],
)
def test_where_no_row_is_left_the_sources_and_the_commonest_reason_are_named(
    prep, tmp_path, rows, settings, remedy
):
    with pytest.raises(DataError) as caught:
        prep(rows, **settings)
    said = str(caught.value)
    assert said.startswith("No row is left for training: 3 rows in, dropped: ")
    assert f"Sources: {tmp_path}/rows.jsonl (3 rows). Most frequent: " in said
    assert remedy in said


# Length.

LONG = alpaca(5, answer="the quick brown fox jumps over the lazy dog " * 20)


def test_rows_over_the_limit_are_dropped_and_counted_with_their_tokens(prep):
    prepared = prep([*GOOD, LONG], max_tokens=60)
    (entry,) = dropped(prepared)
    assert entry["reason"] == "over max_tokens"
    assert entry["tokens"] == prepared.figures["tokens_dropped"] > 60
    assert prepared.figures["tokens_cut"] == 0


def test_a_cut_row_is_counted_and_its_cut_end_is_never_taught_as_an_end(prep, chatml):
    prepared = prep([LONG], max_tokens=60, overlong="truncate")
    figures = prepared.figures
    assert (figures["rows_kept"], figures["rows_truncated"], figures["rows_dropped"]) == (0, 1, 0)
    assert figures["tokens_kept"] == 60
    assert figures["tokens_cut"] == figures["tokens_in"] - 60
    (sequence,) = prepared.sequences("train").to_pylist()
    taught = [
        index
        for index, supervised in zip(sequence["input_ids"], sequence["supervised"], strict=True)
        if supervised
    ]
    assert taught
    assert sequence["supervised"][-1]
    assert chatml.stop_id not in taught


def test_a_cut_between_turns_keeps_the_end_of_the_answer_before_it(prep, chatml):
    row = messages(("user", "q"), ("assistant", "a"), ("user", LONG["output"]), ("assistant", "b"))
    prepared = prep([row, IN_ORDER], max_tokens=60, overlong="truncate")
    sequences = prepared.sequences("train").to_pylist()
    (cut,) = [s for s in sequences if max(s["row_lengths"]) == 60]
    taught = [i for i, s in zip(cut["input_ids"], cut["supervised"], strict=True) if s]
    assert taught[-1] == chatml.stop_id
    assert not cut["supervised"][-1]


def test_samples_are_rows_whose_prompt_was_not_cut(prep, tmp_path):
    """Verification asks the server with them: a cut prompt can never match."""
    cut_prompt = messages(
        ("user", "q"), ("assistant", "a"), ("user", LONG["output"]), ("assistant", "b")
    )
    prepared = prep([cut_prompt, IN_ORDER], max_tokens=60, overlong="truncate")
    assert prepared.figures["rows_truncated"] == 1
    assert [sample.where for sample in prepared.samples()] == [f"{tmp_path}/rows.jsonl:2"]


@pytest.mark.parametrize("first", ["talks.jsonl", "texts.jsonl"])
def test_rows_that_are_cut_and_no_text_take_no_place_among_samples(tmp_path, chatml, first):
    """Of a cut text the beginning is asked for; of a cut conversation nothing can be."""
    rows: dict[str, list[object]] = {
        "talks.jsonl": [alpaca(n, f"so {n} " * 40) for n in range(300)] + [alpaca(400)],
        "texts.jsonl": [{"text": f"{n}: {' '.join(SENTENCES)}"} for n in range(20)],
    }
    paths = [write_jsonl(tmp_path / name, rows[name]) for name in sorted(rows, key=first.__ne__)]
    config = DataConfig(
        sources=[{"path": path} for path in paths], max_tokens=40, overlong="truncate"
    )
    samples = prepare(config, chatml, tmp_path).samples()
    places = [sample.where.rpartition("/")[2] for sample in samples]
    assert places == ["talks.jsonl:301", *(f"texts.jsonl:{n}" for n in range(1, 21))]


@pytest.mark.parametrize("overlong", ["drop", "truncate"])
def test_prompts_that_fill_the_window_leave_nothing_and_are_refused(prep, overlong):
    rows = [{"instruction": f"{n} " + LONG["output"], "output": "a"} for n in range(3)]
    reason = {"drop": "over max_tokens", "truncate": "nothing supervised left"}[overlong]
    with pytest.raises(DataError, match=rf"No row is left for training: 3 rows in.*3 {reason}"):
        prep(rows, max_tokens=60, overlong=overlong)
    figures = prep([*GOOD, *rows], max_tokens=60, overlong=overlong).figures
    assert figures["dropped"] == {reason: 3}
    assert figures["train_rows"] == 4


# Duplicates and the split.


def test_duplicates_are_dropped_with_the_survivor_as_witness(prep, tmp_path):
    prepared = prep([*GOOD, GOOD[1]])
    (entry,) = dropped(prepared)
    assert entry["reason"] == "exact duplicate"
    assert entry["witness"] == f"{tmp_path}/rows.jsonl:2"
    assert entry["where"] == f"{tmp_path}/rows.jsonl:5"


def test_too_many_duplicates_are_refused(prep):
    with pytest.raises(DataError, match=r"6 of 7 rows repeat another row, more than data\.max_d"):
        prep([GOOD[0]] * 7)
    assert prep([GOOD[0]] * 7, max_duplicates=0.9).figures["train_rows"] == 1
    assert prep([GOOD[0]] * 7, dedup={"exact": False}).figures["train_rows"] == 7


def test_a_source_that_is_listed_twice_is_refused(tmp_path):
    source = {"path": write_jsonl(tmp_path / "r.jsonl", GOOD)}
    with pytest.raises(ValidationError, match=r"r\.jsonl is listed more than once"):
        DataConfig(sources=[source, source])
    hub = {"path": "owner/name"}
    for other in ({"split": "test"}, {"name": "b"}, {"revision": "v2"}, {"skip": 3}):
        assert DataConfig(sources=[hub | {"take": 3}, hub | other])


@pytest.mark.parametrize(
    ("first", "second", "apart"),
    [
        ({"take": 2}, {"skip": 2}, True),
        ({"skip": 2, "take": 2}, {"take": 2}, True),
        ({"take": 2}, {"skip": 1}, False),
        ({"skip": 1}, {"skip": 5, "take": 1}, False),
        ({"take": 2}, {"take": 2, "weight": 2.0}, False),
    ],
)
def test_one_file_may_be_listed_twice_where_its_parts_do_not_overlap(first, second, apart):
    sources = [{"path": "r.jsonl"} | first, {"path": "r.jsonl"} | second]
    if apart:
        assert DataConfig(sources=sources)
    else:
        with pytest.raises(ValidationError, match="more than once"):
            DataConfig(sources=sources)


def test_a_file_that_two_sources_name_is_refused(tmp_path, chatml):
    path = write_jsonl(tmp_path / "r.jsonl", GOOD)
    (tmp_path / "link.jsonl").symlink_to(path)
    for other in (str(tmp_path), f"{tmp_path}/*.jsonl", f"{tmp_path}/link.jsonl"):
        config = DataConfig(sources=[{"path": other}, {"path": path}])
        with pytest.raises(
            DataError, match=r"r\.jsonl is named by two sources: .*would count twice"
        ):
            prepare(config, chatml, tmp_path / "out")


def test_parts_of_a_file_are_sources_of_their_own(tmp_path, chatml):
    path = write_jsonl(tmp_path / "r.jsonl", GOOD)
    sources = [{"path": path, "skip": 1}, {"path": path, "take": 1}]
    prepared = prepare(DataConfig(sources=sources, max_tokens=256), chatml, tmp_path)
    assert prepared.figures["rows_in"] == prepared.figures["rows_kept"] == len(GOOD)
    packs = prepared.sequences("train").column("rows").to_pylist()
    rows = [place for pack in packs for place in pack]
    assert sorted(rows) == [f"{path}:{line}" for line in range(1, len(GOOD) + 1)]


def test_a_witness_is_never_a_row_that_was_dropped_itself(tmp_path, chatml):
    long = alpaca(3, answer="fox and dog " * 400)
    source = {"path": write_jsonl(tmp_path / "r.jsonl", [*GOOD, long, long])}
    prepared = prepare(DataConfig(sources=[source], max_tokens=256), chatml, tmp_path)
    assert [entry["reason"] for entry in dropped(prepared)] == ["over max_tokens"] * 2


def test_near_duplicates_are_dropped_with_their_tokens_and_a_certificate(prep):
    text = " ".join(f"word{i}x" for i in range(60))
    twins = [alpaca(30, answer=text), alpaca(31, answer=f"{text} more")]
    prepared = prep([*GOOD, *twins], dedup={"minhash": {"on": "response"}})
    (entry,) = dropped(prepared)
    assert entry["reason"] == "near-duplicate"
    assert int(entry["tokens"]) > 60
    (line,) = (prepared.folder / "certificates.jsonl").read_text(encoding="utf-8").splitlines()
    certificate = json.loads(line)
    assert (certificate["removed"], certificate["witness"]) == (entry["where"], entry["witness"])
    assert certificate["similarity"] == 60 / 61


def test_rows_of_the_validation_source_are_dropped_from_training(tmp_path, chatml):
    train = {"path": write_jsonl(tmp_path / "train.jsonl", GOOD)}
    own = {"path": write_jsonl(tmp_path / "own.jsonl", [alpaca(20), GOOD[2], GOOD[2]])}
    prepared = prepare(DataConfig(sources=[train], validation=own), chatml, tmp_path)
    leaked, repeated = dropped(prepared)
    assert repeated["reason"] == "exact duplicate"
    assert leaked["reason"] == "also in validation"
    assert leaked["where"] == f"{tmp_path}/train.jsonl:3"
    assert leaked["witness"] == f"{tmp_path}/own.jsonl:2"
    assert (prepared.figures["train_rows"], prepared.figures["validation_rows"]) == (3, 2)
    with pytest.raises(ValidationError, match=r"train\.jsonl is trained on as well; hold out a fr"):
        DataConfig(sources=[train], validation=train)
    both = {"path": str(tmp_path / "*.jsonl")}
    with pytest.raises(DataError, match=r"own\.jsonl is named by two sources"):
        prepare(DataConfig(sources=[both], validation=own), chatml, tmp_path)


def test_no_prompt_is_trained_on_and_held_out(prep, tmp_path):
    rows = [alpaca(n % 10, answer=f"Answer {n}.") for n in range(40)]
    prepared = prep(rows, validation=0.3)

    def questions(split: str) -> set[int]:
        table = prepared.sequences(split).to_pylist()
        return {int(w.split(":")[-1]) % 10 for sequence in table for w in sequence["rows"]}

    assert questions("train") | questions("validation") == set(range(10))
    assert not questions("train") & questions("validation")
    assert prepared.figures["validation_rows"] == 12


@pytest.mark.parametrize("validation", [4, 100, 10**30])
def test_a_validation_that_takes_every_row_is_refused(prep, validation):
    with pytest.raises(DataError, match="No row is left for training: 4 rows in, dropped: none"):
        prep(GOOD, validation=validation)
    with pytest.raises(DataError, match=f"validation={validation} .* there are 4 rows. Ask for f"):
        prep(GOOD, validation=validation)


@pytest.mark.parametrize(("fraction", "held_out"), [(0.001, 1), (0.5, 2), (0.99, 3)])
def test_a_fraction_of_few_rows_leaves_rows_on_both_sides(prep, fraction, held_out):
    assert prep(GOOD, validation=fraction).figures["validation_rows"] == held_out


def test_rows_read_as_the_wrong_format_are_told_which_one_they_look_like(tmp_path, chatml):
    talk = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
    source = {"path": write_jsonl(tmp_path / "r.jsonl", [talk]), "format": "alpaca"}
    with pytest.raises(DataError, match="looks like sharegpt: set the source's format to sharegpt"):
        prepare(DataConfig(sources=[source]), chatml, tmp_path)


def test_a_file_in_a_folder_that_is_there_is_not_looked_for_on_the_hub(
    tmp_path, chatml, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("my").mkdir()
    with pytest.raises(DataError, match="my/rows: no such file"):
        prepare(DataConfig(sources=[{"path": "my/rows"}]), chatml, tmp_path)


def test_rows_of_one_question_only_cannot_be_split_and_the_error_says_why(prep):
    rows = [alpaca(1, answer=f"Answer {n}.") for n in range(5)]
    with pytest.raises(DataError, match=r"0 rows for training, 5 for validation; rows that ask"):
        prep(rows, validation=1)


@pytest.mark.parametrize("value", [-1, -0.1, 1.5, True, float("nan"), float("inf"), "-1", "many"])
def test_a_validation_that_is_no_fraction_and_no_number_is_refused(value):
    with pytest.raises(ValidationError, match="validation"):
        DataConfig(sources=[{"path": "a.jsonl"}], validation=value)


@pytest.mark.parametrize(
    "settings", [{"seed": -1}, {"seed": 2**64}, {"max_tokens": 7}, {"sources": []}, {"dedupe": {}}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValidationError):
        DataConfig(**{"sources": [{"path": "a.jsonl"}]} | settings)


# Nothing to work with.


@pytest.mark.parametrize("rows", [[], ["", "  "]])
def test_a_source_without_rows_is_refused(prep, rows):
    with pytest.raises(DataError, match=r"rows\.jsonl: has no rows"):
        prep(rows)


def test_a_csv_file_with_nothing_but_a_header_is_refused(tmp_path, chatml):
    path = tmp_path / "r.csv"
    path.write_text("instruction,output\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"r\.csv: has no rows"):
        prepare(DataConfig(sources=[{"path": str(path)}]), chatml, tmp_path)


def test_data_that_is_empty_after_filtering_is_refused_with_the_reasons(prep):
    rows = [BAD_ROWS["empty answer"], BAD_ROWS["missing field"], BAD_ROWS["missing field"]]
    with pytest.raises(DataError, match="dropped: 2 missing field, 1 empty answer"):
        prep(rows, on_error="skip")


def test_a_format_that_is_not_recognised_is_refused_with_the_fields_found(prep):
    with pytest.raises(DataError, match=r"unknown format: fields frage, text; formats: alpaca, s"):
        prep([{"frage": "q", "text": "a"}])


def test_auto_takes_the_format_of_the_first_row_it_knows_and_says_so(prep, tmp_path):
    prepared = prep(["{", {"x": 1}, *GOOD, IN_ORDER], on_error="skip")
    chosen = prepared.figures["formats"]
    assert chosen == {f"{tmp_path}/rows.jsonl": "alpaca (from its fields)"}
    because = prepared.figures["formats_because"]
    assert because == {f"{tmp_path}/rows.jsonl": "it has 'instruction' and 'output'"}
    assert prepared.figures["dropped"] == {"malformed": 1, "unknown format": 1, "missing field": 1}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"instruction": "q", "chosen": "a", "rejected": "b"},
        {"prompt": "q", "completion": "a", "label": False},
    ],
)
def test_rows_for_preference_training_are_recognised_and_kept_out_of_sft(prep, row):
    with pytest.raises(DataError, match="preference row: chosen/rejected or label: such rows are"):
        prep([row])
    with pytest.raises(DataError, match="dropped: 1 preference row"):
        prep([row], on_error="skip")


# Templates that data meets.


def test_a_template_whose_end_is_no_special_token_never_reaches_the_data(tokenizer, tmp_path):
    path = tmp_path / "own.jinja"
    path.write_text(
        "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}",
        encoding="utf-8",
    )
    with pytest.raises(TemplateError, match="would never learn to stop"):
        load_template(str(path), tokenizer)


def test_a_template_that_drops_the_system_message_stops_the_preparation(prep, tokenizer, tmp_path):
    path = tmp_path / "own.jinja"
    path.write_text(
        "{% for m in messages if m.role != 'system' %}"
        "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        encoding="utf-8",
    )
    template = load_template(str(path), tokenizer)
    row = messages(("system", "Be brief."), ("user", "q"), ("assistant", "a"))
    with pytest.raises(DataError, match=r"template loses a message: what the system says"):
        prep([row], template)


# What is written.


def file_hashes(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


@pytest.mark.parametrize("packing", [True, False])
def test_the_same_input_gives_the_same_bytes(tmp_path, chatml, packing):
    rows = [alpaca(n % 45, answer="fox " * (n % 7 + 1)) for n in range(60)] + [LONG, "{"]
    source = {"path": write_jsonl(tmp_path / "r.jsonl", rows)}
    config = DataConfig(
        sources=[source],
        validation=0.2,
        max_tokens=100,
        overlong="truncate",
        on_error="skip",
        packing=packing,
    )
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        prepare(config, chatml, tmp_path / name)
        found.append(file_hashes(tmp_path / name))
    assert found[0] == found[1]
    texts = {
        *("certificates.jsonl", "dropped.jsonl", "ledger.json"),
        *("overlaps.jsonl", "overview.json", "samples.jsonl"),
    }
    assert set(found[0]) == {*texts, "train.arrow", "validation.arrow"}


def test_packed_and_unpacked_sequences_hold_the_same_rows(prep):
    def rows(packing: bool) -> set[tuple[str, tuple[int, ...]]]:
        found = set()
        for sequence in prep(GOOD, packing=packing).sequences("train").to_pylist():
            ids = iter(sequence["input_ids"])
            for where, length in zip(sequence["rows"], sequence["row_lengths"], strict=True):
                found.add((where, tuple(next(ids) for _ in range(length))))
        return found

    assert rows(packing=True) == rows(packing=False)
    assert prep(GOOD, packing=True).figures["packs"] == 1
    assert prep(GOOD, packing=False).figures["packs"] == 4


def test_progress_is_told_of_every_row(tmp_path, chatml):
    steps: dict[str, int] = {}

    def progress(step: str, rows: int) -> None:
        steps[step] = steps.get(step, 0) + rows

    source = {"path": write_jsonl(tmp_path / "r.jsonl", GOOD)}
    prepare(DataConfig(sources=[source]), chatml, tmp_path, progress)
    assert steps == {"preparing rows": 4, "comparing rows": 4}


def test_what_was_prepared_can_be_opened_again_and_another_folder_cannot(prep, tmp_path):
    prepared = prep(GOOD)
    assert PreparedDataset.open(prepared.folder).figures == prepared.figures
    with pytest.raises(DataError, match="no prepared data set here"):
        PreparedDataset.open(tmp_path)


# Real data.


@pytest.mark.parametrize(
    ("path", "format_name", "rows"),
    [
        ("alpaca_en_demo/alpaca_en_demo.json", "alpaca", 999),
        ("sharegpt_dummy/dummy_conversation.json", "sharegpt", 500),
        ("oasst_samples/oasst_half_a.jsonl", "guanaco", 489),
        ("identity/identity.json", "alpaca", 91),
    ],
)
def test_real_files_balance(tmp_path, tokenizer, path, format_name, rows):
    if not (SHARED / path).is_file():
        pytest.skip(f"{SHARED / path} is not here")
    for name in ("chatml", "mistral"):
        folder = tmp_path / name
        folder.mkdir()
        # Nearly all rows of one of these are chained together by near-duplicates.
        together = "questions" if "sharegpt" in path else "near-duplicates"
        config = DataConfig(
            sources=[{"path": str(SHARED / path)}], validation=0.1, keep_together=together
        )
        figures = prepare(config, load_template(name, tokenizer), folder).figures
        assert figures["formats"][str(SHARED / path)] == f"{format_name} (from its fields)"
        assert figures["rows_in"] == rows
        assert figures["rows_kept"] + figures["rows_dropped"] == rows
        assert figures["train_rows"] + figures["validation_rows"] == figures["rows_kept"]
        assert figures["tokens_kept"] + figures["tokens_dropped"] == figures["tokens_in"]
        assert set(figures["dropped"]) <= {"over max_tokens", "exact duplicate"}
        assert 0 < figures["tokens_supervised"] < figures["tokens_kept"]


@pytest.mark.parametrize("empty", [{"text": ""}, {"prompt": "", "completion": ""}])
def test_the_first_half_of_plain_text_is_what_a_server_is_asked_with(prep, chatml, empty):
    """A server refuses an empty prompt."""
    said = ["The quick brown fox jumps.", "Der Fuchs \U0001f98a ist hier.", "\U0001f98a" * 9]
    key = list(empty)[-1]
    prepared = prep([empty | {key: text} for text in said])
    assert prepared.figures["train_rows"] == 3
    samples = prepared.samples()
    assert len(samples) == 3
    for text, sample in zip(said, samples, strict=True):
        prefix = chatml.tokenizer.text_prefix_ids
        assert sample.prompt
        assert text.startswith(sample.prompt)
        (ids,) = chatml.tokenizer.encode([sample.prompt])
        assert sample.ids[: sample.prompt_tokens] == [*prefix, *ids]
        assert sample.prompt_tokens <= len(sample.ids) // 2 + 1


def test_a_row_that_a_mixture_repeats_is_one_sample(tmp_path, chatml):
    sources = [
        {"path": write_jsonl(tmp_path / f"{name}.jsonl", rows), "weight": 1}
        for name, rows in {"one": GOOD[:1], "many": [alpaca(n) for n in range(20, 60)]}.items()
    ]
    config = DataConfig(sources=sources, mixture={"until": "all"})
    prepared = prepare(config, chatml, tmp_path)
    assert prepared.figures["train_rows"] > 70
    places = [sample.where for sample in prepared.samples()]
    assert len(places) == len(set(places)) == 41
