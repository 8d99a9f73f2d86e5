"""Pairs as units: rendered, fitted, accounted for, packed and written."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from preference_rows import labelled, pair, units_of, written
from tiny_tokenizer import alpaca, dropped, supervised_runs, write_jsonl

from data_prep.auditing import audit_prepared
from data_prep.chat_templates import ChatTemplate
from data_prep.errors import DataError, RowError
from data_prep.filters.candidate import Candidate
from data_prep.overlong import NOTHING_LEFT, TOO_LONG
from data_prep.pipeline import prepare
from data_prep.prepared import PreparedDataset
from data_prep.rendering import Rendered
from data_prep.rows import Completion, Conversation, Labelled, Message, Preference, Text
from data_prep.settings import DataConfig
from data_prep.units import EQUAL_WITHIN, answer_at, fit_unit, prompt_of, render_units, rows_of

Q, A, B = Message("user", "q"), Message("assistant", "Yes."), Message("assistant", "No.")


@pytest.fixture
def prep(tmp_path: Path, chatml: ChatTemplate):
    """Prepare rows as pairs, from one file of lines."""

    def run(rows: list[object], units: str = "pairs", **settings: Any) -> PreparedDataset:
        folder = tmp_path / "prepared"
        folder.mkdir(exist_ok=True)
        path = write_jsonl(tmp_path / "rows.jsonl", rows)
        config = DataConfig.model_validate({"sources": [{"path": path}], **settings})
        return prepare(config, chatml, folder, units=units)

    return run


def balanced(figures: dict[str, Any]) -> bool:
    rows = figures["rows_kept"] + figures["rows_truncated"] + figures["rows_dropped"]
    tokens = figures["tokens_kept"] + figures["tokens_cut"] + figures["tokens_dropped"]
    return (rows, tokens) == (figures["rows_in"], figures["tokens_in"])


# Rendering.


def test_both_sides_have_one_prompt_and_learn_their_answer_alone(template, tokenizer):
    earlier = (Message("user", "Hi"), Message("assistant", "Hello."))
    row = Preference((*earlier, Q), (A,), (B,))
    ((chosen, rejected),) = render_units([row], template, "answers", "pairs")
    for side, answer in ((chosen, "Yes."), (rejected, "No.")):
        (learned,) = supervised_runs(side, tokenizer)
        assert answer in learned
        assert "Hello" not in learned
        assert side.ids[-1] == side.stop_id or side.stop_id in side.ids[side.prompt_tokens :]
    assert chosen.prompt_tokens == rejected.prompt_tokens
    one, other = (side.ids[: side.prompt_tokens] for side in (chosen, rejected))
    assert one.tolist() == other.tolist()


def test_answers_of_several_turns_are_compared_from_their_first_one(chatml, tokenizer):
    more = (A, Message("user", "And?"), B)
    ((chosen, rejected),) = render_units([Preference((Q,), more, (B,))], chatml, "answers", "pairs")
    assert supervised_runs(chosen, tokenizer) == ["Yes.<|im_end|>", "No.<|im_end|>"]
    assert answer_at(chosen) < chosen.prompt_tokens
    assert prompt_of(chosen).tolist() == prompt_of(rejected).tolist()


def test_plain_text_has_no_template_and_ends_in_the_stop_token(chatml, tokenizer):
    ((chosen, rejected),) = render_units(
        [Preference("The sky is", " blue.", " red.")], chatml, "answers", "pairs"
    )
    assert supervised_runs(chosen, tokenizer) == [" blue.</s>"]
    assert supervised_runs(rejected, tokenizer) == [" red.</s>"]


def test_a_side_that_cannot_be_rendered_is_named(chatml):
    bad = replace(B, content="No.<|im_end|>")
    (found,) = render_units([Preference((Q,), (A,), (bad,))], chatml, "answers", "pairs")
    assert isinstance(found, RowError)
    assert found.reason == "special token in the text"
    assert found.detail.startswith("rejected: '<|im_end|>'")


def test_sides_whose_supervised_part_begins_elsewhere_are_refused(chatml):
    silent = (replace(A, train=False), Message("user", "And?"), B)
    (found,) = render_units([Preference((Q,), silent, (B,))], chatml, "answers", "pairs")
    assert isinstance(found, RowError)
    assert found.reason == "sides differ in their prompt"


def test_sides_that_become_equal_tokens_are_equal_answers(chatml):
    (found,) = render_units([Preference((Q,), (A,), (A,))], chatml, "answers", "pairs")
    assert isinstance(found, RowError)
    assert found.reason == "equal answers"


@pytest.mark.parametrize(
    ("row", "units", "reason", "says"),
    [
        (Preference("q", "a", "b"), "rows", "preference row", "training.method=dpo"),
        (Labelled("q", "a", label=True), "rows", "preference row", "kto from a label"),
        (Conversation((Q, A)), "pairs", "no preference", "training.method=sft"),
        (Completion("q", "a"), "pairs", "no preference", "training.method=sft"),
        (Text("a page"), "pairs", "no preference", "training.method=sft"),
        (Labelled("q", "a", label=True), "pairs", "no preference", "training.method=kto"),
        (Conversation((Q, A)), "labelled", "no label", "training.method=sft"),
        (Preference("q", "a", "b"), "labelled", "no label", "dpo, orpo or reward"),
    ],
)
def test_a_row_of_another_kind_says_which_method_learns_from_it(row, units, reason, says, chatml):
    with pytest.raises(RowError, match=reason) as caught:
        rows_of(row, units)
    assert says in caught.value.detail
    (found,) = render_units([row], chatml, "answers", units)
    assert isinstance(found, RowError)
    assert found.reason == reason


# What is too long.


def side(prompt: int, answer: list[int]) -> Rendered:
    ids = [*range(100, 100 + prompt), *answer]
    supervised = np.arange(len(ids)) >= prompt
    return Rendered(np.array(ids, np.int32), supervised, prompt, stop_id=1)


def test_a_pair_with_one_long_side_goes_as_a_whole():
    pair_of = (side(4, [7, 1]), side(4, [8, 8, 8, 8, 1]))
    assert fit_unit(pair_of, 8, "drop").reason == TOO_LONG
    assert fit_unit(pair_of, 9, "drop").pieces == pair_of


def test_of_a_long_pair_the_ends_of_the_answers_are_cut_and_counted():
    pair_of = (side(4, [7, 7, 7, 7, 1]), side(4, [8, 1]))
    fitted = fit_unit(pair_of, 6, "truncate")
    chosen, rejected = fitted.pieces
    assert chosen.ids.tolist() == [100, 101, 102, 103, 7, 7]
    assert rejected is pair_of[1]
    assert fitted.cut == 3


def test_a_prompt_is_never_cut():
    pair_of = (side(6, [7, 1]), side(6, [8, 1]))
    assert fit_unit(pair_of, 6, "truncate").reason == NOTHING_LEFT
    assert fit_unit(pair_of, 5, "truncate").reason == NOTHING_LEFT
    assert [len(piece.ids) for piece in fit_unit(pair_of, 7, "truncate").pieces] == [7, 7]


def test_sides_that_differ_only_behind_the_cut_go():
    pair_of = (side(2, [7, 7, 7, 1]), side(2, [7, 7, 8, 1]))
    assert fit_unit(pair_of, 4, "truncate").reason == EQUAL_WITHIN
    assert len(fit_unit(pair_of, 5, "truncate").pieces) == 2


def test_a_side_that_the_other_one_begins_with_stays():
    pair_of = (side(2, [7, 7]), side(2, [7, 7, 8, 1]))
    answers = [piece.ids[2:].tolist() for piece in fit_unit(pair_of, 5, "truncate").pieces]
    assert answers == [[7, 7], [7, 7, 8]]


# The whole way.


@pytest.mark.parametrize("packing", [True, False])
def test_every_pair_is_written_once_and_never_parted(prep, packing):
    prepared = prep([pair(n) for n in range(30)], packing=packing, max_tokens=256, validation=6)
    for split, count in (("train", 24), ("validation", 6)):
        units = units_of(prepared, split)
        assert len(units) == len({one.where for one, _ in units}) == count
        assert all((one.kind, other.kind) == (1, 0) for one, other in units)
        assert all(one.answer != other.answer for one, other in units)
        packs = Counter(row.pack for row in written(prepared, split))
        assert (max(packs.values()) > 2) == packing
    lengths = [len(ids) for ids in prepared.sequences("train")["input_ids"]]
    assert max(lengths) <= 2 * 256
    assert not packing or max(lengths) > 256
    assert sum(lengths) == prepared.figures["train_tokens"]


def test_chosen_and_rejected_are_not_exchanged(prep, tokenizer):
    prepared = prep([pair(n, f"good {n}", f"bad {n}") for n in range(5)])
    for one, other in units_of(prepared):
        number = int(one.where.rpartition(":")[2]) - 1
        assert tokenizer.decode(one.answer) == f"good {number}<|im_end|>\n"
        assert tokenizer.decode(other.answer) == f"bad {number}<|im_end|>\n"


def test_sft_rows_have_no_kinds(prep):
    prepared = prep([alpaca(1), alpaca(2)], units="rows")
    assert "row_kinds" not in prepared.sequences("train").column_names
    assert prepared.figures["units"] == "rows"


def test_a_pair_is_one_row_of_the_account_with_the_tokens_of_both_sides(prep):
    prepared = prep([pair(n) for n in range(8)])
    figures = prepared.figures
    assert (figures["rows_in"], figures["rows_kept"], figures["units"]) == (8, 8, "pairs")
    rows = written(prepared)
    assert sum(len(row.ids) for row in rows) == figures["tokens_in"] == figures["tokens_kept"]
    assert sum(sum(row.supervised) for row in rows) == figures["tokens_supervised"]
    assert balanced(figures)


PLANTED = {
    "equal answers": pair(50, "The same.", "The same."),
    TOO_LONG: pair(51, "a " * 300),
}


def test_pairs_that_teach_nothing_are_in_the_ledger_and_no_error(prep, tmp_path):
    rows = [*(pair(n) for n in range(4)), *PLANTED.values()]
    prepared = prep(rows, max_tokens=128)
    assert prepared.figures["dropped"] == dict.fromkeys(PLANTED, 1)
    assert balanced(prepared.figures)
    for number, (reason, entry) in enumerate(zip(PLANTED, dropped(prepared), strict=True), 5):
        assert (entry["where"], entry["reason"]) == (f"{tmp_path}/rows.jsonl:{number}", reason)
    assert "chosen" in dropped(prepared)[1]["detail"]
    assert "max_tokens=128" in dropped(prepared)[1]["detail"]


def test_truncated_pairs_are_counted_and_those_that_the_cut_makes_equal_go(prep):
    rows = [
        pair(1),
        pair(2, "b " * 300),
        pair(3, "c " * 300 + "x", "c " * 300 + "y"),
        pair(4) | {"conversations": [{"from": "human", "value": "d " * 300}]},
    ]
    prepared = prep(rows, max_tokens=128, overlong="truncate")
    figures = prepared.figures
    assert figures["dropped"] == {EQUAL_WITHIN: 1, NOTHING_LEFT: 1}
    assert (figures["rows_kept"], figures["rows_truncated"]) == (1, 1)
    assert balanced(figures)
    by_place = {one.where.rpartition(":")[2]: (one, other) for one, other in units_of(prepared)}
    assert len(by_place["2"][0].ids) == 128
    assert by_place["2"][0].supervised[-1] == 1


@pytest.mark.parametrize("units", ["pairs", "labelled"])
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"overlong": "split"}, "data.overlong=split .* use drop, or truncate"),
        ({"supervise": "all"}, "data.supervise=all is for sft"),
        ({"supervise": "last"}, "data.supervise=last is for sft"),
    ],
)
def test_settings_that_no_preference_can_have_are_refused(prep, units, settings, says):
    with pytest.raises(DataError, match=says):
        prep([pair(1)], units=units, **settings)


@pytest.mark.parametrize(
    ("rows", "units", "reason", "says"),
    [
        ([alpaca(1), alpaca(2)], "pairs", "no preference", "training.method=sft learns from"),
        ([labelled(1)], "pairs", "no preference", "kto"),
        ([pair(1)], "labelled", "no label", "dpo, orpo and reward"),
        ([pair(1)], "rows", "preference row", "dpo, orpo or reward"),
        ([pair(1)], "rows", "preference row", "sft, pretrain and distill teach every answer as"),
    ],
)
def test_a_source_of_another_kind_is_refused_and_the_method_that_fits_is_named(
    prep, rows, units, reason, says
):
    with pytest.raises(DataError, match=reason) as caught:
        prep(rows, units=units)
    assert says in str(caught.value)
    with pytest.raises(DataError, match="No row is left for training") as caught:
        prep(rows, units=units, on_error="skip")
    assert says in str(caught.value)


def test_a_row_of_another_kind_among_pairs_is_dropped_where_that_is_asked_for(prep):
    rows = [pair(1), pair(2), pair(3) | {"chosen": None}]
    assert prep(rows, on_error="skip").figures["train_rows"] == 2


def test_the_same_bytes_for_any_workers_and_shards(prep):
    files = []
    for shard_rows, workers in ((3, 2), (100, 1)):
        prepared = prep([pair(n) for n in range(20)], shard_rows=shard_rows, workers=workers)
        files.append((prepared.folder / "train.arrow").read_bytes())
    assert files[0] == files[1]


def test_samples_are_the_chosen_sides(prep, tokenizer):
    prepared = prep([pair(n, f"good {n}", f"bad {n}") for n in range(5)])
    samples = prepared.samples()
    assert len(samples) == 5
    for sample in samples:
        assert [message["role"] for message in sample.messages] == ["user"]
        assert len(sample.ids) == len(sample.supervised)
        answer = tokenizer.decode(sample.ids[sample.prompt_tokens :])
        assert answer.startswith("good")
        assert "bad" not in answer


def test_the_report_shows_both_sides(prep):
    prepared = prep([pair(1, "good", "bad")])
    overview = json.loads((prepared.folder / "overview.json").read_text())
    shown = {each["where"].rpartition(" ")[2]: each["runs"][-2][0] for each in overview["rendered"]}
    assert shown == {"(chosen)": "good<|im_end|>", "(rejected)": "bad<|im_end|>"}


def test_an_audit_counts_pairs_that_a_mixture_repeats(tmp_path, chatml):
    few = write_jsonl(tmp_path / "few.jsonl", [pair(1)])
    many = write_jsonl(tmp_path / "many.jsonl", [pair(n) for n in range(2, 8)])
    sources = [{"path": few, "weight": 1}, {"path": many, "weight": 2}]
    values = {"sources": sources, "mixture": {"by": "rows", "until": "all"}}
    config = DataConfig.model_validate(values)
    folder = tmp_path / "prepared"
    folder.mkdir()
    prepared = prepare(config, chatml, folder, units="pairs")
    assert (prepared.figures["train_rows"], prepared.figures["train_repeats"]) == (9, 2)
    assert len(units_of(prepared)) == 9
    assert audit_prepared(config, chatml, prepared).problems == []


# What filters and comparisons look at.


def test_filters_look_at_the_better_answer(prep):
    rows = [pair(1, rejected="I'm sorry, but I cannot."), pair(2, chosen="I'm sorry, but I can't.")]
    prepared = prep(rows, filters=[{"kind": "refusals"}])
    assert [entry["where"].rpartition(":")[2] for entry in dropped(prepared)] == ["2"]
    assert Candidate(Preference("q", "a", "b"), 3).both == "q\na"


def test_a_filter_of_tokens_measures_the_longer_side(prep):
    rows = [pair(1), pair(2, rejected="no " * 60)]
    prepared = prep(rows, filters=[{"kind": "tokens", "max": 50}])
    assert prepared.figures["dropped"] == {"filter tokens": 1}


def test_pairs_with_another_worse_answer_are_no_duplicates(prep):
    answers = ["Paris is the capital of France, of course.", "Nobody knows what that might be."]
    rows = [pair(1, "one good answer", worse) for worse in (*answers, answers[0])]
    prepared = prep(rows, dedup={"exact": True, "same_words": True}, max_duplicates=1)
    assert prepared.figures["dropped"] == {"exact duplicate": 1}
    prepared = prep(rows[:2], dedup={"minhash": {"min_words": 1}})
    assert prepared.figures["train_rows"] == 2


def test_masking_that_makes_sides_equal_drops_the_pair(prep):
    rows = [pair(1), pair(2, "Ask a@example.com", "Ask b@example.com")]
    prepared = prep(rows, filters=[{"kind": "personal", "action": "mask"}])
    assert prepared.figures["dropped"] == {"equal answers": 1}


def test_an_evaluation_text_in_a_worse_answer_is_found(prep, tmp_path):
    text = "the quick brown fox jumps over the lazy dog and then it runs far away from here"
    against = write_jsonl(tmp_path / "eval.jsonl", [{"question": text}])
    contamination = {"against": [against], "action": "drop"}
    prepared = prep([pair(1), pair(2, rejected=text)], contamination=contamination)
    assert prepared.figures["dropped"] == {"in an evaluation set": 1}


def test_typed_markers_are_escaped_on_both_sides(prep, tokenizer):
    rows = [pair(1, "a <|im_end|>", "b <|im_end|>"), pair(2)]
    with pytest.raises(DataError, match="special token in the text"):
        prep(rows)
    prepared = prep(rows, markers="escape")
    assert prepared.figures["rows_escaped"] == 1
    (unit,) = (unit for unit in units_of(prepared) if unit[0].where.endswith(":1"))
    shown = [tokenizer.decode(each.answer) for each in unit]
    assert shown == ["a <| im_end|><|im_end|>\n", "b <| im_end|><|im_end|>\n"]


def test_a_pair_whose_question_validation_asks_leaves_training_with_a_certificate(
    prep, tmp_path, chatml
):
    own = write_jsonl(tmp_path / "own.jsonl", [pair(2, "other words", "and more of them")])
    settings = {"validation": {"path": own}, "keep_together": "questions"}
    prepared = prep([pair(1), pair(2), pair(3)], **settings)
    assert prepared.figures["dropped"] == {"also in validation": 1}
    sources = [{"path": str(tmp_path / "rows.jsonl")}]
    config = DataConfig.model_validate({"sources": sources, **settings})
    audit = audit_prepared(config, chatml, prepared)
    assert (audit.duplicates, audit.problems) == (1, [])
