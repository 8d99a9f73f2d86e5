import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from tiny_tokenizer import alpaca, dropped, write_jsonl

from data_prep.decisions import examples
from data_prep.errors import DataError
from data_prep.ledger import Count, Dropped, Ledger
from data_prep.pipeline import prepare
from data_prep.settings import DataConfig
from data_prep.sources.config import SourceConfig

WORDS = st.sampled_from(["fox", "dog", "", " ", "<|im_end|>", "Paris.", "\u2028 é \U0001f98a"])
TEXT = st.lists(WORDS, max_size=12).map(" ".join)
ALPACA = st.fixed_dictionaries(
    {"instruction": TEXT | st.none(), "output": TEXT | st.integers()}, optional={"input": TEXT}
)
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": TEXT}
)
OPENAI = st.fixed_dictionaries({"messages": st.lists(TURN, max_size=5)})
ODD = st.sampled_from(["{broken", "[1]", '{"instruction": NaN}', '{"instruction": "\\ud800"}'])


@st.composite
def lines(draw: st.DrawFn, format_name: str) -> list[object]:
    """Good rows of a format, some of them twice, among rows of every kind."""
    good = [alpaca(n) for n in draw(st.lists(st.integers(0, 30), min_size=4, max_size=12))]
    if format_name == "openai":
        said = ("user", "instruction"), ("assistant", "output")
        good = [{"messages": [{"role": r, "content": row[f]} for r, f in said]} for row in good]
    other = draw(st.lists(st.one_of(ALPACA, OPENAI, ODD), max_size=15))
    if format_name != "openai":
        long = draw(st.lists(st.integers(10, 60), max_size=3))
        other += [alpaca(100 + n, "The quick fox. " * n) for n in long]
    return [good[0], *draw(st.permutations([*good[1:], *other]))]


@st.composite
def inputs(draw: st.DrawFn) -> tuple[str, list[object], list[object]]:
    """A format, training rows, and validation rows or none."""
    name = draw(st.sampled_from(["auto", "alpaca", "openai"]))
    return name, draw(lines(name)), draw(st.just([]) | lines(name))


@settings(max_examples=150)
@given(
    given_rows=inputs(),
    choices=st.fixed_dictionaries(
        {
            "overlong": st.sampled_from(["drop", "truncate", "split"]),
            "roles": st.sampled_from(["refuse", "drop", "merge"]),
            "markers": st.sampled_from(["refuse", "drop"]),
            "packing": st.booleans(),
            "dedup": st.booleans().map(lambda exact: {"exact": exact}),
            "max_tokens": st.sampled_from([25, 40, 80, 500]),
            "seed": st.integers(0, 3),
        }
    ),
    validation=st.sampled_from([0, 0.3, 2]),
)
def test_every_row_and_token_that_entered_is_accounted_for(
    chatml, tmp_path_factory, given_rows, choices, validation
):
    format_name, lines, own = given_rows
    folder = tmp_path_factory.mktemp("random")
    source = {"path": write_jsonl(folder / "train.jsonl", lines), "format": format_name}
    held_out = (
        SourceConfig(path=write_jsonl(folder / "own.jsonl", own), format=format_name)
        if own
        else validation
    )
    config = DataConfig(
        sources=[source], validation=held_out, on_error="skip", max_duplicates=1, **choices
    )
    try:
        prepared = prepare(config, chatml, folder)
    except DataError as error:
        event("refused: nothing left")
        assert str(error).startswith("No row is left for")  # noqa: PT017 (data may be all bad)
        return
    figures = prepared.figures
    assert figures["rows_in"] == len(lines) + len(own)
    kept = figures["rows_kept"] + figures["rows_truncated"] + figures["rows_split"]
    assert figures["rows_in"] == kept + figures["rows_dropped"]
    assert kept == figures["train_rows"] + figures["validation_rows"]
    spent = figures["tokens_kept"] + figures["tokens_cut"] + figures["tokens_dropped"]
    assert figures["tokens_in"] == spent

    written = [prepared.sequences(split).to_pylist() for split in ("train", "validation")]
    sequences = [sequence for split in written for sequence in split]
    assert sum(len(s["input_ids"]) for s in sequences) == figures["tokens_kept"]
    assert sum(sum(s["supervised"]) for s in sequences) == figures["tokens_supervised"]
    assert len(written[0]) == figures["packs"]
    for sequence in sequences:
        assert sum(sequence["row_lengths"]) == len(sequence["input_ids"]) <= config.max_tokens
        assert len(sequence["input_ids"]) == len(sequence["supervised"])
        start = 0
        for length in sequence["row_lengths"]:
            assert any(sequence["supervised"][start + 1 : start + length])
            start += length

    gone = dropped(prepared)
    # A split row stands there once a piece.
    stayed = {where for sequence in sequences for where in sequence["rows"]}
    assert len(gone) == figures["rows_dropped"]
    assert all(entry["where"] and entry["reason"] for entry in gone)
    places = [*stayed, *(entry["where"] for entry in gone)]
    assert sorted(places) == sorted(
        [f"{folder}/train.jsonl:{i}" for i in range(1, len(lines) + 1)]
        + [f"{folder}/own.jsonl:{i}" for i in range(1, len(own) + 1)]
    )
    for entry in gone:
        if entry["reason"] in ("exact duplicate", "also in validation"):
            assert entry["witness"] in places
    assert sum(figures["dropped"].values()) == len(gone)
    for sample in prepared.samples():
        assert sample.where in stayed
        assert sample.supervised[sample.prompt_tokens]


@pytest.mark.parametrize(
    "ledger",
    [
        Ledger(rows_in=1),
        Ledger(rows_kept=1),
        Ledger(rows_in=1, dropped={"r": Count(rows=1, tokens=1)}),
        Ledger(rows_in=1, rows_kept=1, tokens_in=5, tokens_kept=4),
        Ledger(rows_in=1, rows_truncated=1, tokens_in=5, tokens_kept=5, tokens_cut=1),
    ],
)
def test_a_ledger_that_does_not_balance_is_an_error(ledger: Ledger):
    with pytest.raises(DataError, match=r"the ledger does not balance: .* report this as a bug"):
        ledger.check()


def test_the_summary_counts_reasons_and_leaves_out_the_rows():
    reasons = {"b": Count(rows=2, tokens=7), "a": Count(rows=1, tokens=0)}
    ledger = Ledger(rows_in=3, tokens_in=7, dropped=reasons)
    ledger.check()
    summary = ledger.summary()
    assert summary["dropped"] == {"b": 2, "a": 1}
    assert summary["dropped_tokens"] == {"b": 7, "a": 0}
    assert (summary["rows_dropped"], summary["tokens_dropped"]) == (3, 7)
    json.dumps(summary)


@given(st.lists(st.sampled_from("abcdefghijkl"), max_size=60), st.integers(1, 20))
def test_examples_are_few_and_show_as_many_reasons_as_they_can(reasons, most):
    rows = [Dropped(where=f"r:{i}", reason=reason) for i, reason in enumerate(reasons)]
    lines = examples(iter(rows), Counter(reasons), most)
    assert len(lines) <= most
    assert len({line.split(": ")[1] for line in lines}) == min(most, len(set(reasons)))


def test_a_row_whose_text_holds_unusual_line_ends_is_read_back_whole(chatml, tmp_path: Path):
    odd = "one\u2028two\u2029three\x85four\x0bfive\x1csix\r\nseven"
    rows = [{"instruction": odd, "output": "a"}, {"instruction": odd, "output": ""}]
    config = DataConfig(
        sources=[SourceConfig(path=write_jsonl(tmp_path / "r.jsonl", rows))], on_error="skip"
    )
    prepared = prepare(config, chatml, tmp_path)
    (sample,) = prepared.samples()
    assert sample.messages == [{"role": "user", "content": odd}]
    assert len(dropped(prepared)) == 1
