"""Labelled answers as units: each with an answer that does not belong to its prompt."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from preference_rows import labelled, units_of
from tiny_tokenizer import write_jsonl

from data_prep import sequences
from data_prep.auditing import audit_prepared
from data_prep.chat_templates import ChatTemplate
from data_prep.errors import DataError
from data_prep.labelled import partners
from data_prep.pipeline import prepare
from data_prep.prepared import PreparedDataset
from data_prep.settings import DataConfig


@pytest.fixture
def prep(tmp_path: Path, chatml: ChatTemplate):
    """Prepare labelled rows, from one file of lines."""

    def run(rows: list[object], **settings: Any) -> PreparedDataset:
        folder = tmp_path / "prepared"
        folder.mkdir(exist_ok=True)
        path = write_jsonl(tmp_path / "rows.jsonl", rows)
        config = DataConfig.model_validate({"sources": [{"path": path}], **settings})
        return prepare(config, chatml, folder, units="labelled")

    return run


@given(st.lists(st.integers(0, 5), max_size=30))
def test_every_row_gets_another_rows_answer_and_gives_its_own_once(questions):
    prompts = np.array(questions, np.uint64)
    found = partners(prompts)
    count = len(questions)
    assert sorted(found.tolist()) == list(range(count))
    assert count < 2 or (found != np.arange(count)).all()
    most = max(Counter(questions).values(), default=0)
    # A question that more than half of the rows ask must be answered by some of its own.
    assert int((prompts[found] == prompts).sum()) == max(0, 2 * most - count)


def test_every_answer_has_a_mismatched_one_of_its_split_beside_it(prep):
    prepared = prep([labelled(n) for n in range(30)], validation=6, max_tokens=256)
    for split, count in (("train", 24), ("validation", 6)):
        units = units_of(prepared, split)
        assert len({one.where for one, _ in units}) == len(units) == count
        for one, other in units:
            assert one.kind == int(one.where.rpartition(":")[2]) % 2
            assert other.kind == 2
            assert other.answer != one.answer
        own = sorted(one.answer for one, _ in units)
        assert sorted(other.answer for _, other in units) == own


def test_mismatched_rows_are_in_no_account(prep):
    prepared = prep([labelled(n) for n in range(8)])
    figures = prepared.figures
    units = units_of(prepared)
    assert sum(len(one.ids) for one, _ in units) == figures["tokens_in"] == figures["tokens_kept"]
    both = sum(len(one.ids) + len(other.ids) for one, other in units)
    assert both == figures["train_tokens"]
    assert (figures["good_rows"], figures["bad_rows"]) == (4, 4)
    assert figures["rows_in"] == figures["rows_kept"] == 8


def test_an_audit_counts_mismatched_answers_for_no_row(prep, tmp_path, chatml):
    prepared = prep([labelled(n) for n in range(12)], validation=4)
    source = {"path": str(tmp_path / "rows.jsonl")}
    config = DataConfig.model_validate({"sources": [source], "validation": 4})
    assert audit_prepared(config, chatml, prepared).problems == []
    figures = replace(prepared, figures=prepared.figures | {"train_tokens": 1})
    (problem,) = audit_prepared(config, chatml, figures).problems
    both = sum(len(one.ids) + len(other.ids) for one, other in units_of(prepared))
    assert problem == f"ledger: train_tokens is 1, counted {both}"


def test_a_mismatched_answer_is_cut_where_a_row_must_end(prep):
    long = {"messages": [{"role": "user", "content": "q " * 40}]} | {"label": True}
    long["messages"].append({"role": "assistant", "content": "Yes."})
    rows = [long, labelled(1, label=False, answer="No, " * 20)]
    prepared = prep(rows, max_tokens=120)
    lengths = {one.where[-1]: (len(one.ids), len(other.ids)) for one, other in units_of(prepared)}
    assert lengths["1"][1] == 120
    assert max(max(pair) for pair in lengths.values()) == 120


def test_a_row_that_is_cut_keeps_its_prompt(prep):
    rows = [labelled(2), labelled(3), labelled(4, answer="Yes, " * 100)]
    prepared = prep(rows, max_tokens=64, overlong="truncate")
    figures = prepared.figures
    assert (figures["rows_kept"], figures["rows_truncated"]) == (2, 1)
    units = {one.where[-1]: one for one, _ in units_of(prepared)}
    assert len(units["3"].ids) == 64


@pytest.mark.parametrize(
    ("label", "says"),
    [
        (True, "All 4 rows left for training are labelled good: .* training.method=sft"),
        (False, "All 4 rows left for training are labelled bad: kto learns"),
    ],
)
def test_answers_of_one_label_alone_are_refused(prep, label, says):
    with pytest.raises(DataError, match=says):
        prep([labelled(n, label=label) for n in range(4)])


def test_validation_of_one_row_is_refused(prep):
    with pytest.raises(DataError, match="One row is left for validation"):
        prep([labelled(n) for n in range(8)], validation=1)


def test_a_question_that_most_rows_ask_is_said_aloud(prep):
    rows = [labelled(1, label=n % 2 == 0, answer=f"answer {n}") for n in range(6)]
    prepared = prep([*rows, labelled(2)])
    (note,) = (note for note in prepared.figures["notes"] if "own question" in note)
    assert note.startswith("warning: 5 rows are compared with an answer to their own question")


def test_samples_are_good_answers(prep):
    prepared = prep([labelled(n) for n in range(8)])
    assert sorted(int(s.where.rpartition(":")[2]) for s in prepared.samples()) == [1, 3, 5, 7]


def test_the_same_bytes_for_any_workers_and_shards(prep):
    files = []
    for shard_rows, workers in ((3, 2), (100, 1)):
        prepared = prep([labelled(n) for n in range(20)], shard_rows=shard_rows, workers=workers)
        files.append((prepared.folder / "train.arrow").read_bytes())
    assert files[0] == files[1]


def test_sequences_that_are_written_a_part_at_a_time_are_the_same(prep, monkeypatch):
    rows = [labelled(n) for n in range(20)]
    whole = units_of(prep(rows, max_tokens=128))
    monkeypatch.setattr(sequences, "WRITE_TOKENS", 150)
    prepared = prep(rows, max_tokens=128)
    assert prepared.sequences("train").column("row_kinds").num_chunks > 3
    assert units_of(prepared) == whole
