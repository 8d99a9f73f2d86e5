"""`llmkit preview` as a person runs it: what is shown is what `llmkit prep` trains on."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmkit.cli import _guarded, app

MAIL = "ada@example.com"


def row(answer: str, question: str = "who") -> dict[str, Any]:
    return {"instruction": question, "output": answer}


@pytest.fixture
def command(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """Run llmkit on some rows in an empty folder; the exit code, and all that was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "2000")
    Path("demo.yaml").write_text(
        f"name: demo\nmodel: {{base: {tiny}}}\ndata: {{sources: [{{path: rows.jsonl}}]}}\n"
    )

    def run(name: str, rows: list[dict[str, Any]], *words: str) -> tuple[int, str]:
        Path("rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
        monkeypatch.setattr("sys.argv", ["llmkit", name, "demo.yaml", *words])
        code = _guarded(app)
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def test_personal_data_is_shown_as_it_is_masked(command):
    code, said = command(
        "preview", [row(f"write to {MAIL}")], "data.filters=[{kind: personal, action: mask}]"
    )
    assert code == 0
    assert MAIL not in said
    assert "write to" in said


def test_a_row_that_a_filter_drops_is_shown_with_its_reason_and_nothing_supervised(command):
    rows = [row("stays here all day long"), row(f"short {MAIL}")]
    code, said = command("preview", rows, "data.filters=[{kind: personal, action: drop}]")
    assert code == 0
    kept, dropped = said.split("rows.jsonl:2")
    assert "\u27e6stays here all day long<|im_end|>\u27e7" in kept
    assert "not trained on: filter personal" in dropped
    assert "short" in dropped
    assert MAIL not in dropped
    assert "\u27e6" not in dropped


@pytest.mark.parametrize("overlong", ["drop", "truncate", "split"])
def test_a_row_that_is_too_long_is_shown_as_what_becomes_of_it(command, overlong):
    rows = [row("so " * 60 + "end"), row("b")]
    words = ("data.max_tokens=48", f"data.overlong={overlong}", "data.packing=false")
    code, said = command("preview", rows, *words)
    long = " ".join(said.split("rows.jsonl:2")[0].split())
    assert code == 0
    said_of = {
        "drop": "not trained on: over max_tokens",
        "truncate": "over data.max_tokens=48: truncated;",
        "split": "over data.max_tokens=48: split",
    }
    assert said_of[overlong] in long
    assert ("end<|im_end|>\u27e7" in long) == (overlong == "split")
    assert ("piece 1 of " in long) == (overlong == "split")
    if overlong == "truncate":
        assert "[48 tokens, " in long


def test_rows_none_of_which_can_be_trained_on_are_an_error(command):
    code, said = command("preview", [row(""), row("")], "data.on_error=skip")
    assert code == 2
    assert said.count("not trained on: ") == 2
    assert "none of the 2 rows shown can be trained on" in said
    code, said = command("preview", [row(""), row("b")])
    assert code == 0


def test_what_is_shown_is_what_prep_writes(command, tiny, monkeypatch):
    """Text for text, of rows that are masked, escaped, filtered and split."""
    from data_prep.prepared import PreparedDataset
    from data_prep.tokenizer import load_tokenizer

    rows = [
        *(row(f"mail {MAIL} or <|im_end|> {i}", f"how {i}") for i in range(3)),
        *(row("long " * 60, f"why {i}") for i in range(2)),
        row("unwanted"),
    ]
    words = (
        "data.filters=[{kind: personal, action: mask}, {kind: pattern, pattern: unwanted}]",
        *("data.markers=escape", "data.max_tokens=64", "data.overlong=split"),
    )
    shown = []
    from llmkit import preview

    real = preview.coloured

    def spied(piece, template, *, marked):
        shown.append((piece.ids.tolist(), piece.supervised.tolist()))
        return real(piece, template, marked=marked)

    monkeypatch.setattr(preview, "coloured", spied)
    assert command("preview", rows, "--rows", "9", *words)[0] == 0
    assert command("prep", rows, *words, "data.packing=false")[0] == 0
    table = PreparedDataset.open(Path("runs/demo/data")).sequences("train")
    trained = [(each["input_ids"], each["supervised"]) for each in table.to_pylist()]
    assert sorted(shown) == sorted(trained)
    assert len(shown) > 5
    assert load_tokenizer(tiny).decode(shown[0][0]).count(MAIL) == 0


def test_rows_are_shown_however_many_are_made_at_a_time(command, monkeypatch):
    monkeypatch.setattr("llmkit.preview.FEW", 2)
    code, said = command("preview", [row(f"answer{i}") for i in range(7)], "--rows", "5")
    assert [f"answer{i}" in said for i in range(7)] == [True] * 5 + [False] * 2
