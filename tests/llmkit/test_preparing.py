"""`llmkit prep` as a person runs it: what it says, refuses, converts and audits."""

import json
from pathlib import Path

import pytest

from data_prep.errors import DataError
from data_prep.prepared import PreparedDataset
from llmkit.cli import _guarded, app


@pytest.fixture
def prep(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """Run `llmkit prep` in an empty folder; the exit code, and all that was printed."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"how {i} is", "completion": f" so {i}"} for i in range(6)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    Path("demo.yaml").write_text(
        f"name: demo\nmodel: {{base: {tiny}}}\n"
        "data: {sources: [{path: rows.jsonl}], max_tokens: 64}\n"
    )

    def run(*words: str, command: str = "prep") -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["llmkit", command, *words])
        code = _guarded(app)
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def test_a_second_prep_is_skipped_and_a_changed_one_says_why(prep):
    assert prep("demo.yaml")[0] == 0
    assert Path("runs/demo/data-report.html").is_file()
    assert "unchanged, skipped" in prep("demo.yaml")[1]
    code, said = prep("demo.yaml", "data.max_tokens=48")
    assert code == 0
    assert "prep is done again: data.max_tokens: 64 -> 48" in said
    assert not list(Path("runs/demo").glob(".prep-*"))


def test_a_changed_source_is_named_by_its_key_and_its_file(prep):
    Path("set.jsonl").write_text('{"question": "what is this"}\n')
    word = "data.contamination={against: [set.jsonl]}"
    assert prep("demo.yaml", word)[0] == 0
    said = " ".join(prep("demo.yaml", word, "data.sources.0.take=5")[1].split())
    assert "prep is done again: data.sources.0.take: null -> 5 ✓" in said
    rows = Path("rows.jsonl").resolve()
    rows.write_text(rows.read_text().replace("how 3", "why 3"))
    said = "".join(prep("demo.yaml", word, "data.sources.0.take=5")[1].split())
    assert f"prepisdoneagain:rowsofdata.sources.0({rows}):" in said
    Path("set.jsonl").write_text('{"question": "what is that"}\n')
    said = " ".join(prep("demo.yaml", word, "data.sources.0.take=5")[1].split())
    assert "prep is done again: texts of data.contamination.against.0" in said


def test_an_audit_counts_contradictions_apart_from_duplicates(prep):
    pairs = [{"prompt": f"how {i} is", "chosen": " so", "rejected": " no"} for i in range(4)]
    pairs += [pairs[0], pairs[1] | {"chosen": " no", "rejected": " so"}]
    Path("pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    words = ("data.sources.0.path=pairs.jsonl", "training.method=dpo")
    code, said = prep("demo.yaml", "--audit", *words)
    said = " ".join(said.split())
    assert code == 0, said
    assert "2 contradicting, 1 exact duplicate" in said
    assert "audit: 1 certificates of removed duplicates hold" in said
    assert "audit: 2 certificates of contradictions hold" in said


def test_evidence_that_was_edited_is_not_audited_but_refused(prep):
    assert "audit: 1 certificates of removed duplicates hold" in prep("demo.yaml", "--audit")[1]
    path = Path("runs/demo/data/certificates.jsonl")
    path.write_text(path.read_text().replace(":1", ":2"))
    code, said = prep("demo.yaml", "--audit")
    assert code == 3
    assert "data was changed by something else since it was prepared" in said
    assert prep("demo.yaml")[0] == 0
    assert prep("demo.yaml", "--audit")[0] == 0


def test_a_source_of_which_nothing_is_left_is_said_aloud(prep):
    Path("other.jsonl").write_text('{"prompt": "a", "completion": ""}\n')
    code, said = prep(
        "demo.yaml",
        "data.sources=[{path: rows.jsonl}, {path: other.jsonl}]",
        "data.on_error=skip",
    )
    assert code == 0
    assert "other.jsonl: none of its 1 rows is left" in " ".join(said.split())


def test_remarks_are_said_aloud_and_stand_in_the_report(prep):
    code, said = prep("demo.yaml", "data.select={kind: top_tokens, count: 9}")
    report = Path("runs/demo/data-report.html").read_text()
    assert code == 0
    for text in (" ".join(said.split()), report):
        assert "9 rows were asked for and there are 6: all of them stay." in text


def test_rows_to_compare_a_selection_with_are_written_unless_it_keeps_every_row(prep):
    comparison = Path("runs/demo/data/comparison.arrow")
    for count, there in ((4, True), (6, False), (9, False)):
        assert prep("demo.yaml", f"data.select={{kind: top_tokens, count: {count}}}")[0] == 0
        report = Path("runs/demo/data-report.html").read_text()
        assert comparison.is_file() == there
        assert ("rows chosen at random stand in data/comparison.arrow" in report) == there


def test_a_skip_past_the_end_says_so(prep):
    code, said = prep("demo.yaml", "data.sources.0.skip=40")
    assert code == 2
    assert "has no rows behind the first 40 (skip)" in said


@pytest.mark.parametrize(
    "word",
    [
        "data.select={kind: mmr, count: 2, model: no-such-model}",
        "data.dedup.semantic={model: no-such-model}",
        "data.filters=[{kind: perplexity, max: 9, model: no-such-model}]",
    ],
)
def test_a_model_that_is_not_there_is_said_before_any_row_is_made(prep, monkeypatch, word):
    monkeypatch.setattr("llmkit.preparing.prepare", lambda *_, **__: pytest.fail("rows were made"))
    code, said = prep("demo.yaml", word)
    assert (code, "model 'no-such-model' was not found" in " ".join(said.split())) == (2, True)


def test_too_many_duplicates_end_with_three(prep):
    code, said = prep("demo.yaml", "data.max_duplicates=0.1")
    assert code == 3
    assert "1 of 7 rows repeat another row" in said


def test_data_is_converted_into_a_new_file_and_never_over_one(prep):
    code, said = prep("rows.jsonl", "--convert", "completion")
    assert code == 0
    assert "7 of 7 rows" in said
    before = Path("rows.completion.jsonl").read_text()
    assert before.count("\n") == 7
    code, said = prep("rows.jsonl", "--convert", "completion")
    assert code == 2
    assert "rows.completion.jsonl: is there already" in said
    assert Path("rows.completion.jsonl").read_text() == before


@pytest.mark.parametrize(
    ("data", "written"),
    [("data", "data"), ("data/*.jsonl", "rows"), ("data/a*.jsonl", "a"), ("data/../data", "data")],
)
def test_converted_data_has_a_name_without_stars_and_dots(prep, data, written):
    Path("data").mkdir()
    Path("data", "a1.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    assert prep(data, "--convert", "completion")[0] == 0
    assert Path(f"{written}.completion.jsonl").is_file()


def test_a_conversion_is_not_audited(prep):
    code, said = prep("rows.jsonl", "--convert", "openai", "--audit")
    assert (code, "--audit: is for preparing" in said) == (2, True)


def test_a_wrong_setting_of_converted_data_is_said_in_plain_words(prep):
    code, said = prep("rows.jsonl", "data.on_error=x", "data.roles=y", "--convert", "openai")
    assert code == 2
    assert "data: 'on_error': must be 'fail' or 'skip' (found \"x\")" in " ".join(said.split())
    assert "'roles': must be 'refuse', 'drop' or 'merge'" in " ".join(said.split())


def test_data_given_as_a_recipe_is_named_as_such(prep):
    code, said = prep("rows.jsonl")
    assert code == 2
    assert "rows.jsonl: this is data. A recipe is a YAML file" in said


def test_converting_says_what_of_the_recipe_it_leaves_aside_and_writes_no_row_held_out(prep):
    Path("held.jsonl").write_text('{"prompt": "held", "completion": " out"}\n')
    words = (
        *("data.validation={path: held.jsonl}", "data.filters=[{kind: tokens, min: 1}]"),
        "data.sources.0.weight=1",
    )
    code, said = prep("demo.yaml", *words, "--convert", "completion")
    assert code == 0
    said = " ".join(said.split())
    assert "as they were read, without data.validation, data.filters, data.max_tokens" in said
    assert "the sources' weights" in said
    written = Path("runs/demo/completion.jsonl").read_text()
    assert written.count("\n") == 7
    assert "held" not in written


def test_an_audit_is_not_asked_for_where_rows_are_only_converted(prep):
    code, said = prep("demo.yaml", "--convert", "completion", "--audit")
    assert code == 2
    assert "--audit" in said
    assert "not for --convert" in " ".join(said.split())
    assert not Path("runs").exists()


def test_what_cannot_be_converted_to_leaves_no_folder_behind(prep):
    code, said = prep("demo.yaml", "--convert", "openia")
    assert code == 2
    assert "'openia' is not a format that can be written" in said
    assert not Path("runs").exists()
    code, said = prep("rows.jsonl", "data.roles=merg", "--convert", "completion")
    assert "'roles': must be 'refuse', 'drop' or 'merge'" in said


def test_files_that_the_shell_wrote_for_a_pattern_are_not_taken_for_settings(prep):
    code, said = prep("rows.jsonl", "other.jsonl", "--convert", "completion")
    assert code == 2
    assert "'other.jsonl': a second file?" in said
    assert prep("r*.jsonl", "--convert", "completion", "--out", "new.jsonl")[0] == 0


def test_what_a_source_was_read_as_and_what_was_left_aside_is_said(prep):
    Path("more.jsonl").write_text('{"prompt": "a", "completion": " b", "lang": "en"}\n')
    said = " ".join(
        prep("demo.yaml", "data.sources=[{path: more.jsonl}, {path: rows.jsonl}]")[1].split()
    )
    why = "completion (from its fields): it has 'prompt' and 'completion'"
    assert f"more.jsonl: {why}" in said
    assert "fields that nothing is made of: lang (1 rows)" in said
    assert "lang (1 rows)" in prep("more.jsonl", "--convert", "completion")[1]


def test_merged_rows_are_said_of_a_conversion(prep):
    turns = [{"role": role, "content": "x"} for role in ("user", "user", "assistant")]
    Path("twice.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    said = prep("twice.jsonl", "data.roles=merge", "--convert", "openai")[1]
    assert "1 of 1 rows; 1 with repeated roles merged" in " ".join(said.split())


PAIRS = [{"prompt": f"how {i} is", "chosen": f" so {i}", "rejected": " run"} for i in range(3)]


def write_rows(rows: list[dict]) -> None:
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def kinds() -> list[list[int]]:
    table = PreparedDataset.open(Path("runs/demo/data")).sequences("train")
    return table.column("row_kinds").to_pylist() if "row_kinds" in table.column_names else []


def test_the_training_method_says_what_is_prepared(prep):
    write_rows(PAIRS)
    code, said = prep("demo.yaml")
    assert code == 2
    assert "preference row" in said
    assert "training.method=dpo, orpo or reward" in " ".join(said.split())
    assert prep("demo.yaml", "training.method=dpo")[0] == 0
    assert kinds() == [[1, 0] * 3]
    assert "unchanged, skipped" in prep("demo.yaml", "training.method=orpo")[1]
    code, said = prep("demo.yaml", "training.method=kto")
    assert code == 2
    assert "prep is done again: units: pairs -> labelled" in said
    assert "no label" in said


def test_labels_out_of_balance_are_said_aloud_with_the_weight_that_balances_them(prep):
    write_rows(
        [{"prompt": f"how {i} is", "completion": f" so {i}", "label": i > 3} for i in range(6)]
    )
    words = ("demo.yaml", "training.method=kto")
    code, said = prep(*words)
    assert code == 0
    assert "2 good and 4 bad answers to train on" in " ".join(said.split())
    assert "training.preference.desirable_weight between 2 and 2.67" in " ".join(said.split())
    assert "bad answers" not in prep(*words, "training.preference.desirable_weight=2")[1]


def test_preview_shows_both_sides_and_what_cannot_be_used(prep):
    write_rows([*PAIRS, {"prompt": "a", "chosen": " b", "rejected": " b"}])
    code, said = prep("demo.yaml", "training.method=dpo", "--rows=4", command="preview")
    assert code == 0
    shown = said.split("rows.jsonl:")[1:]
    assert "chosen:" in shown[0]
    assert "\u27e6 so 0<|im_end|>\u27e7" in shown[0]
    assert "rejected:" in shown[0]
    assert "\u27e6 run<|im_end|>\u27e7" in shown[0]
    assert "not trained on: equal answers" in shown[3]
    code, said = prep("demo.yaml", command="preview")
    assert code == 2
    assert said.count("not trained on: preference row") == 3


def test_what_a_mixture_came_to_is_said_and_stands_in_the_report(prep):
    Path("few.jsonl").write_text('{"prompt": "a", "completion": " b"}\n')
    sources = "data.sources=[{path: rows.jsonl, weight: 2}, {path: few.jsonl, weight: 1}]"
    code, said = prep("demo.yaml", sources, "data.mixture={by: rows, until: all}")
    said = " ".join(said.split())
    assert code == 0
    assert "8 rows in, 9 to train on (2 of them repeats)" in said
    assert "rows.jsonl: 66.7% of rows, 66.7% wanted; 6 rows" in said
    assert "few.jsonl: 33.3% of rows, 33.3% wanted; 1 rows and 2 repeats of them" in said
    report = Path("runs/demo/data-report.html").read_text()
    ledger = json.loads(Path("runs/demo/data/ledger.json").read_text())
    assert "<h2>Mixture</h2>" in report
    assert f"tokens trained on</span><b>{ledger['train_tokens']}</b>" in report
    assert "of these, repeats</span><b>2</b>" in report
    assert prep("demo.yaml", sources, "data.mixture={by: rows, until: all}", "--audit")[0] == 0


def test_tokens_trained_on_are_told_without_those_that_are_held_out(prep):
    assert prep("demo.yaml", "data.validation=2")[0] == 0
    report = Path("runs/demo/data-report.html").read_text()
    ledger = json.loads(Path("runs/demo/data/ledger.json").read_text())
    assert ledger["train_tokens"] < ledger["tokens_kept"]
    assert f"tokens trained on</span><b>{ledger['train_tokens']}</b>" in report


@pytest.mark.parametrize(
    "words",
    [
        ("data.max_duplicates=0.1",),
        ("data.sources.0.path=bad.jsonl",),
        ("data.sources.0.path=empty.jsonl",),
        ("model.chat_template=no-such",),
        ("data.filters=[{kind: tokens, min: 64}]",),
        (
            "data.contamination={against: [rows.jsonl], action: refuse}",
            "data.sources.0.path=c.jsonl",
        ),
    ],
)
def test_a_refused_preparation_leaves_nothing_behind(prep, words):
    Path("bad.jsonl").write_text('{"prompt": "a", "completion": ""}\n')
    Path("c.jsonl").write_text(Path("rows.jsonl").read_text())
    Path("empty.jsonl").write_text("")
    assert prep("demo.yaml", *words)[0] in (2, 3)
    assert not Path("runs").exists()


def test_what_can_be_gone_on_with_is_kept_until_the_preparation_ends(prep, monkeypatch):
    """A model that cannot be had may be there the next time: the rows need not be made again."""

    def cannot(*_):
        raise DataError("no such model")

    with monkeypatch.context() as patch:
        patch.setattr("data_prep.comparing.Comparing.filter_by_perplexity", cannot)
        assert prep("demo.yaml")[0] == 2
    assert list(Path("runs/demo").glob(".prep-*/rows-*/*.arrow"))
    assert prep("demo.yaml")[0] == 0
    assert not list(Path("runs/demo").glob(".prep-*"))


def test_a_failed_conversion_leaves_no_folder_behind(prep):
    Path("bad.jsonl").write_text('{"prompt": "a", "completion": ""}\n')
    assert prep("demo.yaml", "data.sources.0.path=bad.jsonl", "--convert", "openai")[0] == 2
    assert not Path("runs").exists()
