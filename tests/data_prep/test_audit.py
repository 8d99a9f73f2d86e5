"""The audit of a prepared folder: it holds as it was written, and fails for whatever is planted."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_steps import ToyModels, row, sentence
from tiny_tokenizer import write_jsonl

from data_prep import auditing
from data_prep.auditing import audit_prepared
from data_prep.errors import DataError
from data_prep.pipeline import prepare
from data_prep.prepared import PreparedDataset
from data_prep.settings import DataConfig

Line = dict[str, Any]
FILES = ("certificates.jsonl", "overlaps.jsonl", "dropped.jsonl")


def rows() -> list[Line]:
    """Rows of which each kind of certificate is made; see `MEASURES`."""
    several = [row(i, sentence(i, 30), topic=i) for i in range(1, 21)]
    twice = several[0]
    cased = several[1] | {"output": several[1]["output"].upper()}
    edited = several[2] | {"output": several[2]["output"] + " or so"}
    more = " ".join(f"more{chr(97 + i)}" for i in range(16))
    meant = row(4, f"{sentence(4, 30)} {more}", topic=45)
    leak = row(41, sentence(41, 30), topic=41)
    grouped = row(42, sentence(42, 30), topic=61)
    asked = row(62, sentence(43, 30), topic=43)
    near = row(63, sentence(63, 30), topic=44) | {"instruction": "Say something else."}
    return [*several, twice, cased, edited, meant, leak, grouped, asked, near]


HELD_OUT = [row(i, sentence(i + (i == 62) * 100, 30), topic=i) for i in (61, 62, 63, 64)]
MEASURES = {"equal": 21, "same words": 22, "jaccard": 23, "group": 26, "question": 27}
"""The line of the row that each measure certifies."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, chatml):
    """A prepared folder with every kind of certificate, and what it was made with."""
    folder = tmp_path_factory.mktemp("audit")
    evaluation = write_jsonl(folder / "eval.jsonl", [{"question": sentence(41, 30)}])
    config = DataConfig.model_validate(
        {
            "sources": [{"path": write_jsonl(folder / "rows.jsonl", rows()), "group": "topic"}],
            "validation": {"path": write_jsonl(folder / "own.jsonl", HELD_OUT), "group": "topic"},
            "dedup": {"minhash": {}, "semantic": {"threshold": 0.7, "on": "response"}},
            "contamination": {"against": [{"path": evaluation, "name": "eval"}]},
            "select": {"kind": "top_tokens", "count": 12},
            "max_tokens": 512,
        }
    )
    (folder / "data").mkdir()
    prepare(config, chatml, folder / "data", models=ToyModels())
    return config, folder / "data"


@pytest.fixture
def audited(made, chatml, tmp_path: Path):
    """Change lines of a copy of the evidence, or the ledger's figures; what the audit says."""
    config, folder = made
    copy = tmp_path / "data"
    shutil.copytree(folder, copy)

    def run(name: str, change: Callable[[Any], Any]) -> str:
        path = copy / name
        text = path.read_text(encoding="utf-8")
        if name == "ledger.json":
            path.write_text(json.dumps(change(json.loads(text))), encoding="utf-8")
        else:
            lines = change([json.loads(line) for line in text.splitlines()])
            path.write_text("".join(json.dumps(x) + "\n" for x in lines), encoding="utf-8")
        prepared = PreparedDataset.open(copy)
        return "\n".join(audit_prepared(config, chatml, prepared, ToyModels()).problems)

    return run


def place(line: int) -> Callable[[str], bool]:
    return lambda where: where.endswith(f"rows.jsonl:{line}")


def edited(line: int, key: str, **change: Any) -> Callable[[list[Line]], list[Line]]:
    """Change the lines about one row, found by ``key``; values may be made from the line."""

    def run(lines: list[Line]) -> list[Line]:
        chosen = [x for x in lines if place(line)(x[key])]
        assert chosen
        for each in chosen:
            each |= {name: v(each) if callable(v) else v for name, v in change.items()}
        return lines

    return run


def without(line: int, key: str) -> Callable[[list[Line]], list[Line]]:
    def run(lines: list[Line]) -> list[Line]:
        left = [x for x in lines if not place(line)(x[key])]
        assert len(left) < len(lines)
        return left

    return run


def certificates(folder: Path) -> dict[int, Line]:
    lines = (folder / "certificates.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return {int(x["removed"].rpartition(":")[2]): x for x in found}


def test_every_kind_of_certificate_is_there_and_holds(made, audited):
    config, folder = made
    measures = {line: c["measure"] for line, c in certificates(folder).items()}
    assert measures == {line: m for m, line in MEASURES.items()} | {24: "cosine", 28: "jaccard"}
    assert len((folder / "overlaps.jsonl").read_text().splitlines()) == 1
    assert audited("ledger.json", lambda figures: figures) == ""


@pytest.mark.parametrize("line", [*MEASURES.values(), 24, 28])
def test_a_missing_certificate_of_any_measure_fails(audited, line):
    said = audited("certificates.jsonl", without(line, "removed"))
    assert re.search(rf":{line}: is not certified", said)


@pytest.mark.parametrize("line", [*MEASURES.values(), 24, 28])
@pytest.mark.parametrize("witness", [18, 22, 99])
def test_another_witness_fails_for_any_measure(audited, line, witness):
    """A row that stays and is not like it; one that was removed itself; one that is not there."""

    def change(x: Line) -> str:
        return str(re.sub(r"[a-z]+\.jsonl:.*", f"rows.jsonl:{witness}", x["witness"]))

    said = audited("certificates.jsonl", edited(line, "removed", witness=change))
    assert re.search(rf"rows.jsonl:{line}: ", said)
    both = audited("dropped.jsonl", edited(line, "where", witness=change))
    assert re.search(rf"rows.jsonl:{line}: ", both)


@pytest.mark.parametrize(
    ("line", "change", "problem"),
    [
        (21, {"similarity": 0.5}, "is certified with similarity 0.5, not 1.0"),
        (21, {"threshold": 0.5}, "is certified with threshold 0.5, not 1.0"),
        (21, {"measure": "group"}, "is certified by group, which was not asked for"),
        (22, {"measure": "question"}, "is certified by question, which was not asked for"),
        (22, {"similarity": 0.5}, "is certified with similarity 0.5, not 1.0"),
        (22, {"measure": "equal"}, "was dropped as duplicate but for case"),
        (23, {"similarity": 0.99}, "certified 0.990000 similar"),
        (23, {"threshold": 0.1}, "is certified with threshold 0.1, not 0.6"),
        (23, {"numbers": "merge"}, "is certified with numbers merge, not distinct"),
        (23, {"ngram": 2}, "is certified with ngram 2, not 1"),
        (23, {"on": "prompt"}, "is certified with on prompt, not both"),
        (23, {"measure": "cosine", "threshold": 0.7}, "certified with the model"),
        (24, {"similarity": 0.999}, "certified a cosine of 0.999000"),
        (24, {"threshold": 0.2}, "is certified with threshold 0.2, not 0.7"),
        (24, {"model": "other"}, "was certified with the model other"),
        (26, {"similarity": 0.5}, "is certified with similarity 0.5, not 1.0"),
        (26, {"measure": "question"}, "does not ask what its witness asks"),
        (27, {"measure": "group"}, "has not the group of its witness"),
        (27, {"measure": "jaccard", "threshold": 0.6}, "similar"),
        (28, {"measure": "same words"}, "has not the same words as its witness"),
        (28, {"measure": "cosine"}, "by cosine, which was not asked for"),
        (28, {"threshold": 0.1}, "is certified with threshold 0.1, not 0.6"),
    ],
)
def test_an_edited_certificate_fails(audited, line, change, problem):
    said = audited("certificates.jsonl", edited(line, "removed", **change))
    assert re.search(rf":{line}: .*{problem}", said), said


def test_a_certificate_of_a_row_that_stays_or_of_one_certified_before_fails(audited, made):
    (one,) = [c for line, c in certificates(made[1]).items() if line == 21]
    kept = one | {"removed": one["removed"].replace(":21", ":15")}
    said = audited("certificates.jsonl", lambda lines: [*lines, kept, one])
    assert ":15: was certified as removed, and is still there" in said
    assert ":15: has a certificate but was not removed" in said
    assert ":21: is certified more than once" in said


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (without(21, "where"), ":21: is in neither output nor dropped rows"),
        (without(21, "where"), ":21: has a certificate but was not removed"),
        (without(25, "where"), ":25: has a certificate but was not dropped"),
        (without(7, "where"), ":7: is in neither output nor dropped rows"),
        (edited(21, "where", reason="near-duplicate"), "was dropped as near-duplicate, certified"),
        (edited(21, "where", reason="not selected"), ":21: has a certificate but was not removed"),
        (edited(7, "where", reason="exact duplicate"), ":7: is not certified"),
        (edited(21, "where", tokens=1), "ledger: tokens_dropped is"),
        (edited(21, "where", where="rows.jsonl:98"), "98: is in dropped, not in the sources"),
        (edited(7, "where", where=lambda x: x["where"][:-1] + "1"), "dropped more than once"),
    ],
)
def test_an_edited_list_of_dropped_rows_fails(audited, change, problem):
    assert problem in audited("dropped.jsonl", change)


@pytest.mark.parametrize(
    "name",
    [
        *("rows_in", "rows_kept", "rows_dropped", "tokens_in", "tokens_kept", "tokens_dropped"),
        *("tokens_cut", "tokens_supervised", "train_rows", "validation_rows", "train_tokens"),
        *("packs", "rows_split", "rows_truncated"),
    ],
)
def test_an_edited_figure_of_the_ledger_fails(audited, name):
    said = audited("ledger.json", lambda figures: figures | {name: figures[name] - 1})
    assert said.startswith("ledger: ")


@pytest.mark.parametrize("name", ["dropped", "dropped_tokens", "sources"])
def test_an_edited_count_by_name_fails(audited, name):
    def change(figures):
        first = next(iter(figures[name]))
        return figures | {name: figures[name] | {first: figures[name][first] + 1}}

    assert f"ledger: {name} is" in audited("ledger.json", change)


def test_an_edited_count_of_leaks_fails(audited):
    def change(figures):
        return figures | {"contamination": figures["contamination"] | {"rows_leaked": 0}}

    assert "rows_leaked is 0, certified 1" in audited("ledger.json", change)


def test_a_ledger_without_the_leaks_fails(audited):
    said = audited("ledger.json", lambda figures: figures | {"contamination": None})
    assert "rows_leaked is None, certified 1" in said


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda lines: [], ":25: is not certified"),
        (edited(25, "row", row=lambda x: x["row"].replace(":25", ":15")), ":15: "),
    ],
)
def test_edited_certificates_of_evaluation_texts_fail(audited, change, problem):
    assert problem in audited("overlaps.jsonl", change)


@pytest.mark.parametrize(
    ("line", "changed", "problem"),
    [
        (1, lambda x: x | {"output": "other"}, ":21: is not equal to its witness"),
        (23, lambda x: x | {"output": sentence(90, 30)}, ":23: certified .* similar, counted"),
        (25, lambda x: x | {"output": sentence(90, 30)}, ":25: the evaluation text does not stand"),
        (26, lambda x: x | {"topic": 3}, ":26: has not the group of its witness"),
        (28, None, ":28: is in dropped, not in the sources"),
    ],
)
def test_rows_that_were_edited_since_fail(made, chatml, tmp_path, line, changed, problem):
    config, folder = made
    own = Path(config.sources[0].path)
    before = own.read_text(encoding="utf-8")
    lines = before.splitlines()
    lines[line - 1 : line] = [json.dumps(changed(json.loads(lines[line - 1])))] if changed else []
    try:
        own.write_text("\n".join(lines) + "\n", encoding="utf-8")
        found = audit_prepared(config, chatml, PreparedDataset.open(folder), ToyModels())
    finally:
        own.write_text(before, encoding="utf-8")
    assert re.search(problem, "\n".join(found.problems))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ['{"removed":', "[]", '{"row": 1}', "\0"])
def test_evidence_that_is_damaged_is_refused_with_its_line(made, chatml, tmp_path, name, damage):
    config, folder = made
    shutil.copytree(folder, tmp_path / "data")
    with (tmp_path / "data" / name).open("a", encoding="utf-8") as file:
        file.write(damage)
    with pytest.raises(DataError, match=rf"{name}:\d+: is not what preparation wrote"):
        audit_prepared(config, chatml, PreparedDataset.open(tmp_path / "data"), ToyModels())


def test_certificates_are_replayed_some_at_a_time(made, chatml, monkeypatch):
    config, folder = made
    monkeypatch.setattr(auditing, "BLOCK", 2)
    found = audit_prepared(config, chatml, PreparedDataset.open(folder), ToyModels())
    assert (found.problems, found.rows, found.duplicates) == ([], 32, 7)


MIXED = ("train_rows", "train_repeats", "train_tokens", "train_supervised", "tokens_kept")


@pytest.fixture(scope="module", params=["truncate", "split"])
def repeating(request, tmp_path_factory: pytest.TempPathFactory, chatml):
    """A prepared folder of which a mixture repeats rows, some of them long."""
    folder = tmp_path_factory.mktemp("mixed")
    plenty = [row(i, sentence(i, 12 + 60 * (i % 5 == 0)), topic=i) for i in range(30)]
    scarce = [row(i, sentence(i, 12 + 60 * (i == 33)), topic=i) for i in range(30, 36)]
    sources = [
        {"path": write_jsonl(folder / f"{name}.jsonl", lines), "weight": weight}
        for name, lines, weight in (("plenty", plenty, 1), ("scarce", scarce, 2))
    ]
    config = DataConfig.model_validate(
        {
            "sources": sources,
            "mixture": {"until": "all"},
            "validation": 3,
            "max_tokens": 128,
            "overlong": request.param,
        }
    )
    (folder / "data").mkdir()
    prepare(config, chatml, folder / "data")
    return config, folder / "data"


def test_a_mixture_that_repeats_rows_is_counted_as_it_is(repeating, chatml):
    config, folder = repeating
    prepared = PreparedDataset.open(folder)
    figures = prepared.figures
    assert audit_prepared(config, chatml, prepared).problems == []
    plenty, scarce = figures["mixture"]
    assert figures["rows_split" if config.overlong == "split" else "rows_truncated"] > 3
    assert scarce["repeats"] > 6
    assert plenty["repeats"] == 0
    assert figures["train_repeats"] == scarce["repeats"]
    assert figures["train_rows"] == sum(
        share["rows"] + share["repeats"] for share in (plenty, scarce)
    )
    assert figures["train_tokens"] == plenty["tokens"] + scarce["tokens"]
    assert (plenty["wanted"], scarce["wanted"]) == (0.333333, 0.666667)
    assert scarce["realised"] == pytest.approx(scarce["tokens"] / figures["train_tokens"], abs=1e-6)
    assert scarce["realised"] == pytest.approx(2 / 3, abs=0.03)


@pytest.mark.parametrize("name", MIXED)
def test_an_edited_figure_of_a_mixture_that_repeats_rows_fails(repeating, chatml, name):
    config, folder = repeating
    prepared = PreparedDataset.open(folder)
    prepared.figures[name] -= 1
    assert f"ledger: {name} is" in "\n".join(audit_prepared(config, chatml, prepared).problems)


@pytest.mark.parametrize("name", ["wanted", "realised", "rows", "repeats", "tokens"])
def test_an_edited_share_of_a_mixture_fails(repeating, chatml, name):
    config, folder = repeating
    prepared = PreparedDataset.open(folder)
    prepared.figures["mixture"][1][name] += 1
    (problem,) = audit_prepared(config, chatml, prepared).problems
    assert problem.startswith("ledger: mixture is")
