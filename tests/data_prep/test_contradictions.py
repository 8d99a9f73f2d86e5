"""Preferences that say the opposite of each other: never duplicates, and never both believed."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from preference_rows import labelled, pair, written
from row_strategies import ROWS
from test_steps import ToyModels
from tiny_tokenizer import dropped, write_jsonl
from word_embedder import WordEmbedder

from data_prep.auditing import audit_prepared
from data_prep.dedup import sides
from data_prep.dedup.certificates import grams, words_in
from data_prep.dedup.deduplicate import DedupConfig, Meaning, deduplicate
from data_prep.dedup.exact import contradictions
from data_prep.dedup.sides import sides_exchanged
from data_prep.dedup.words import TextsInMemory
from data_prep.errors import DataError
from data_prep.making import hashes_of
from data_prep.pipeline import prepare
from data_prep.prepared import PreparedDataset
from data_prep.row_text import opposite, text_of, whole_text
from data_prep.rows import Labelled, Preference
from data_prep.settings import DataConfig
from data_prep.units import SIDES

LONG = "the answer names every river of the country and says how long each of them is in miles"
OTHER = "nobody has ever counted them because maps of that age were lost when a library burned"


@pytest.fixture
def prep(tmp_path: Path, chatml):
    """Prepare rows from one file of lines, and audit what comes out."""

    def run(rows: list[dict[str, Any]], units: str, **choices: Any) -> PreparedDataset:
        folder = tmp_path / "prepared"
        folder.mkdir(exist_ok=True)
        path = write_jsonl(tmp_path / "rows.jsonl", rows)
        values = {"sources": [{"path": path}], "max_duplicates": 0.9, "max_tokens": 512}
        config = DataConfig.model_validate(values | choices)
        prepared = prepare(config, chatml, folder, units=units, models=ToyModels())
        assert audit_prepared(config, chatml, prepared, ToyModels()).problems == []
        return prepared

    return run


def gone(prepared: PreparedDataset) -> dict[int, tuple[str, int]]:
    """The line of each row that was dropped: why, and the line of its witness."""

    def line(where: object) -> int:
        return int(str(where).rpartition(":")[2])

    return {line(e["where"]): (e["reason"], line(e["witness"])) for e in dropped(prepared)}


def turned(row: dict[str, Any]) -> dict[str, Any]:
    """What says the opposite of a pair or of a labelled answer."""
    if "label" in row:
        return row | {"label": not row["label"]}
    return row | {"chosen": row["rejected"], "rejected": row["chosen"]}


# Hashes.


@given(ROWS, ROWS)
def test_rows_have_equal_hashes_if_they_are_equal_and_opposites_differ_in_one_bit(one, other):
    high, low, _ = hashes_of(one)
    equal = hashes_of(other)[:2] == (high, low)
    assert equal == (whole_text(one) == whole_text(other))
    if isinstance(one, Preference | Labelled):
        assert hashes_of(opposite(one))[:2] == (high, low ^ 1)
        assert opposite(opposite(one)) == one


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7)), max_size=40))
def test_each_row_is_bound_to_the_first_that_says_the_opposite(rows):
    found = contradictions(np.array(rows, np.uint64).reshape(-1, 2)).tolist()
    for row, (high, low) in enumerate(rows):
        opponents = [i for i, each in enumerate(rows) if each == (high, low ^ 1)]
        assert found[row] == (opponents[0] if opponents else -1)


# Word for word.


@pytest.mark.parametrize(("units", "make"), [("pairs", pair), ("labelled", labelled)])
@pytest.mark.parametrize("exact", [True, False])
def test_rows_that_contradict_each_other_all_go_and_name_each_other(prep, units, make, exact):
    rows = [make(n) for n in range(5)]
    rows += [turned(rows[1]), make(9), rows[1], turned(rows[3]), turned(rows[1]), rows[0]]
    prepared = prep(rows, units, dedup={"exact": exact})
    contradicting = {2: 6, 4: 9, 6: 2, 8: 6, 9: 4, 10: 2}
    expected = {line: ("contradicting", other) for line, other in contradicting.items()}
    assert gone(prepared) == expected | ({11: ("exact duplicate", 1)} if exact else {})
    figures = prepared.figures
    assert figures["dropped"]["contradicting"] == 6
    assert figures["steps"]["without contradictions"]["rows"] == 5
    assert figures["tokens_in"] == figures["tokens_kept"] + figures["tokens_dropped"]
    left = {int(each.where.rpartition(":")[2]) for each in written(prepared)}
    assert left == {1, 3, 5, 7} | (set() if exact else {11})
    details = {e["detail"] for e in dropped(prepared) if e["reason"] == "contradicting"}
    assert details == {"another row says the opposite: neither can be believed"}


def test_contradictions_are_no_duplicates_for_max_duplicates(prep):
    rows = [pair(n) for n in range(4)]
    prepared = prep([*rows, *map(turned, rows[:3])], "pairs", max_duplicates=0)
    assert prepared.figures["dropped"] == {"contradicting": 6}


def test_where_every_row_is_contradicted_the_remedy_is_named(prep):
    with pytest.raises(DataError, match="6 contradicting") as caught:
        prep([row for n in range(3) for row in (pair(n), turned(pair(n)))], "pairs")
    assert "keep the right one" in str(caught.value)


def test_an_answer_that_is_the_better_one_here_and_the_worse_one_there_is_a_ranking(prep):
    ranked = [pair(1, "best", "middling"), pair(1, "middling", "bad")]
    assert prep(ranked, "pairs", dedup={"minhash": {"min_words": 1}}).figures["dropped"] == {}


def test_a_row_that_a_filter_dropped_contradicts_nobody(prep):
    row = pair(1, "As an AI language model, I cannot say.", "Two.")
    prepared = prep([row, turned(row), pair(2)], "pairs", filters=[{"kind": "refusals"}])
    assert prepared.figures["dropped"] == {"filter refusals": 1}


def test_the_validation_source_is_not_contradicted_by_training_rows(prep, tmp_path):
    own = write_jsonl(tmp_path / "own.jsonl", [turned(pair(2)), pair(7), turned(pair(7)), pair(8)])
    prepared = prep([pair(1), pair(2), pair(3)], "pairs", validation={"path": own})
    assert prepared.figures["dropped"] == {"contradicting": 2, "also in validation": 1}
    assert (prepared.figures["train_rows"], prepared.figures["validation_rows"]) == (2, 2)


@pytest.mark.parametrize(("units", "make"), [("pairs", pair), ("labelled", labelled)])
def test_the_same_bytes_for_any_workers_and_shards(prep, units, make):
    rows = [make(n) for n in range(12)]
    rows += [*map(turned, rows[:5]), *rows[:8]]
    files = ("train.arrow", "dropped.jsonl", "certificates.jsonl", "ledger.json")
    made = []
    for shard_rows, workers in ((3, 2), (100, 1)):
        choices = {"shard_rows": shard_rows, "workers": workers, "dedup": {"minhash": {}}}
        folder = prep(rows, units, **choices).folder
        made.append([(folder / name).read_bytes() for name in files])
    assert made[0] == made[1]


# Nearly.

NEARLY: dict[str, dict[str, Any]] = {
    "same words": {"same_words": True},
    "minhash": {"minhash": {}},
    "minhash on prompts": {"minhash": {"on": "prompt", "min_words": 1}},
    "semantic": {"semantic": {"threshold": 0.6}},
}


def case(row: dict[str, Any], how: Callable[[str], str] = str.upper) -> dict[str, Any]:
    """A row in the same words."""
    if "label" in row:
        turns = [turn | {"content": how(turn["content"])} for turn in row["messages"]]
        return row | {"messages": turns}
    upper = {side: {"from": "gpt", "value": how(row[side]["value"])} for side in SIDES}
    return row | upper


@pytest.mark.parametrize("dedup", NEARLY.values(), ids=NEARLY)
@pytest.mark.parametrize(
    ("units", "row", "more"),
    [
        ("pairs", pair(1, LONG, OTHER), pair(2, LONG[:30], OTHER[:40])),
        ("labelled", labelled(1, True, LONG), labelled(2, False, OTHER)),
    ],
)
def test_near_duplicates_that_say_the_opposite_stay_and_others_go(prep, dedup, units, row, more):
    prepared = prep([row, turned(case(row)), case(row, str.title), more], units, dedup=dedup)
    assert {line: witness for line, (_, witness) in gone(prepared).items()} == {3: 1}


def test_of_each_direction_one_near_duplicate_stays(prep):
    row = pair(1, LONG, OTHER)
    rows = [row, turned(case(row)), case(row, str.title), pair(1, OTHER + " then", LONG)]
    prepared = prep(rows, "pairs", dedup={"minhash": {}})
    assert gone(prepared) == {
        3: ("duplicate but for case and punctuation", 1),
        4: ("near-duplicate", 2),
    }


def test_paraphrases_of_each_direction_are_found_among_themselves(prep):
    said = "begin to purchase a rapid car", "nobody needs that automobile any more"
    same = "begin to buy a fast car", "nobody needs that car any more"
    rows = [pair(1, *said), turned(pair(1, *said)), pair(1, *same), turned(pair(1, *same))]
    for row, asked in zip(rows, ("Which?", "which", "Which!", "which.")):
        row["conversations"] = [{"from": "human", "value": asked}]
    prepared = prep(rows, "pairs", dedup={"semantic": {"threshold": 0.9}})
    assert gone(prepared) == {3: ("semantic duplicate", 1), 4: ("semantic duplicate", 2)}


def test_answers_of_the_same_words_in_another_order_are_two_answers(prep):
    reverse = " ".join(LONG.split()[::-1])
    rows = [
        pair(1, LONG, reverse),
        pair(1, LONG + " now", reverse),
        pair(1, reverse + " now", LONG),
    ]
    prepared = prep(rows, "pairs", dedup={"minhash": {}})
    assert gone(prepared) == {2: ("near-duplicate", 1)}


def test_a_row_that_stays_for_its_direction_is_compared_by_its_meaning(prep):
    asked = [{"from": "human", "value": "Which?"}]
    one = pair(1, "some words of alpha", "beta gamma delta") | {"conversations": asked}
    other = pair(1, "buy a fast car", "epsilon some words") | {"conversations": asked}
    like = pair(1, "purchase a rapid automobile", "epsilon some words")
    like |= {"conversations": [{"from": "human", "value": "Tell me please"}]}
    dedup = {
        "minhash": {"on": "prompt", "min_words": 1},
        "semantic": {"threshold": 0.9, "on": "response"},
    }
    assert gone(prep([one, other, like], "pairs", dedup=dedup)) == {3: ("semantic duplicate", 2)}


def test_a_long_prompt_does_not_hide_that_short_answers_are_exchanged(prep):
    asked = {"conversations": [{"from": "human", "value": f"{LONG}. {OTHER}."}]}
    rows = [pair(1, a, b) | asked for a, b in (("Yes, sure.", "No."), ("No!", "yes sure"))]
    for dedup in NEARLY.values():
        assert prep(rows, "pairs", dedup=dedup).figures["dropped"] == {}


@pytest.mark.parametrize(("one", "other"), [("ha", "ha ha"), ("Yes!", "yes"), ("!!!", "???")])
def test_answers_of_the_same_words_do_not_say_which_is_the_better_one(prep, one, other):
    rows = [pair(1, one, other), turned(pair(1, one, other))]
    rows[1]["conversations"] = [{"from": "human", "value": "what is 1 plus one"}]
    assert prep(rows, "pairs", dedup={"same_words": True}).figures["dropped"] == {}


def test_rows_that_say_the_opposite_are_not_parted_by_the_split(prep):
    """They are no duplicates, and yet one of them is a leak of the other."""
    rows = []
    for n in range(12):
        words = " ".join(f"{word}{chr(97 + n)}" for word in LONG.split())
        for label, said in ((True, words), (False, f"{words} indeed")):
            row = labelled(n, label, said)
            row["messages"][0]["content"] += " Tell me." * label
            rows.append(row)
    prepared = prep(rows, "labelled", validation=6)
    for split in ("train", "validation"):
        lines = {(int(r.where.rpartition(":")[2]) - 1) // 2 for r in written(prepared, split)}
        assert len(lines) == prepared.figures[f"{split}_rows"] // 2


ANSWERS = st.lists(st.sampled_from(["a", "b", "c", "B", "!"]), max_size=5).map(" ".join)
PAIRS = st.lists(st.builds(Preference, ANSWERS, ANSWERS, ANSWERS), max_size=12)


def another_way(one: Preference, other: Preference) -> bool:
    """`sides_exchanged` in sets of words."""

    def alike(a: str, b: str) -> float:
        left, right = (grams(words_in(text), sides.RUN) for text in (a, b))
        return len(left & right) / len(left | right) if left | right else 1.0

    straight = alike(one.chosen, other.chosen) + alike(one.rejected, other.rejected)
    crosswise = alike(one.chosen, other.rejected) + alike(one.rejected, other.chosen)
    return crosswise > 0 and crosswise >= straight


def read_from(rows):
    def read(chosen):
        return [(rows[i].chosen, rows[i].rejected) for i in chosen.tolist()]

    return read


@given(PAIRS.filter(len), st.data(), st.integers(1, 30))
def test_sides_are_exchanged_as_sets_of_words_say(rows, data, edges):
    places = st.lists(st.integers(0, len(rows) - 1), min_size=20, max_size=20)
    left, right = (np.array(data.draw(places), np.int64) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sides, "EDGES", edges)
        found = sides_exchanged(read_from(rows), left, right).tolist()
    pairs = zip(left.tolist(), right.tolist(), strict=True)
    assert found == [another_way(rows[i], rows[j]) for i, j in pairs]
    assert sides_exchanged(read_from(rows), left[:0], right[:0]).tolist() == []


@settings(max_examples=300, deadline=None)
@given(PAIRS, st.sampled_from(["prompt", "response", "both"]), st.booleans(), st.booleans())
def test_no_pair_is_bound_to_one_that_goes_another_way(rows, on, minhash, semantic):
    values: dict[str, Any] = {"same_words": True}
    if minhash:
        values["minhash"] = {"threshold": 0.3, "min_words": 0, "on": on}
    if semantic:
        values["semantic"] = {"threshold": 0.4, "on": on}
    config = DedupConfig.model_validate(values)
    hashes = np.array([hashes_of(row)[:2] for row in rows], np.uint64).reshape(-1, 2)
    texts = TextsInMemory(text_of(row, on if minhash else "both") for row in rows)
    meaning = Meaning(lambda some: [text_of(rows[i], on) for i in some.tolist()], WordEmbedder())

    def opposed(left, right):
        return sides_exchanged(read_from(rows), left, right)

    everyone = np.arange(len(rows))
    found = deduplicate(
        hashes, texts, config, everyone, meaning if semantic else None, opposed=opposed
    )
    assert not np.isin(found.witness, found.removed).any()
    for removed, witness in zip(found.removed.tolist(), found.witness.tolist(), strict=True):
        one, other = rows[removed], rows[witness]
        assert whole_text(one) == whole_text(other) or not another_way(one, other)


# The audit, and what a person sees.


@pytest.fixture
def audited(prep, chatml, tmp_path: Path):
    """What the audit says after lines of the evidence were changed."""
    rows = [pair(1), pair(2), turned(pair(1)), pair(3), pair(3), pair(4)]
    prepared = prep(rows, "pairs")

    def run(name: str, change: Any, lines: Any = None) -> str:
        path = prepared.folder / name
        entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for entry in entries:
            key = "removed" if name == "certificates.jsonl" else "where"
            if entry[key].endswith(":3"):
                entry |= {k: re.sub(r"(?<=:)\d+$", v, entry[k]) for k, v in change.items()}
        path.write_text("".join(json.dumps(e) + "\n" for e in entries), encoding="utf-8")
        if lines:
            write_jsonl(tmp_path / "rows.jsonl", lines(rows))
        config = DataConfig.model_validate(
            {"sources": [{"path": str(tmp_path / "rows.jsonl")}], "max_tokens": 512}
        )
        return "\n".join(audit_prepared(config, chatml, prepared).problems)

    return run


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("certificates.jsonl", {"witness": "2"}, ":2, was not dropped for that"),
        ("certificates.jsonl", {"witness": "3"}, "does not say the opposite of"),
        ("certificates.jsonl", {"removed": "2"}, ":3: is not certified"),
        ("dropped.jsonl", {"witness": "2"}, r":3: was dropped for .*:2, certified for .*:1"),
        ("dropped.jsonl", {"where": "2"}, ":3: is in neither output nor dropped rows"),
    ],
)
def test_an_edited_contradiction_fails_the_audit(audited, name, change, problem):
    assert audited(name, {}) == ""
    assert re.search(problem, audited(name, change))


def test_a_row_that_was_edited_since_contradicts_no_more(audited):
    found = audited("dropped.jsonl", {}, lambda rows: [*rows[:2], pair(1), *rows[3:]])
    assert re.search(":1: does not say the opposite of .*:3", found)
    assert re.search(":3: does not say the opposite of .*:1", found)


@pytest.mark.parametrize("row", [pair(1, LONG, OTHER), labelled(1, True, LONG)])
def test_a_duplicate_of_a_row_that_says_the_opposite_fails_the_audit(row, tmp_path, chatml):
    units = "labelled" if "label" in row else "pairs"
    near = labelled(1, True, LONG + " now") if "label" in row else pair(1, LONG + " now", OTHER)
    more = labelled(2, False) if "label" in row else pair(2)
    source = {"path": write_jsonl(tmp_path / "rows.jsonl", [row, near, more])}
    config = DataConfig.model_validate({"sources": [source], "dedup": {"minhash": {}}})
    prepared = prepare(config, chatml, tmp_path, units=units)
    assert gone(prepared) == {2: ("near-duplicate", 1)}
    assert audit_prepared(config, chatml, prepared).problems == []
    write_jsonl(tmp_path / "rows.jsonl", [row, turned(near), more])
    (problem,) = audit_prepared(config, chatml, prepared).problems
    assert problem.endswith(":2: says another answer is the good one than its witness does")


def test_the_report_shows_which_answer_each_row_says_is_the_better_one(prep):
    rows = [pair(1, "good", "bad"), turned(pair(1, "good", "bad")), pair(2)]
    overview = json.loads((prep(rows, "pairs").folder / "overview.json").read_text())
    first, second = overview["duplicates"]
    assert first["measure"] == second["measure"] == "opposite"
    assert first["removed_text"] == second["witness_text"]
    assert first["removed_text"].endswith("\n\nchosen: good\n\nrejected: bad")
    assert first["witness_text"].endswith("\n\nchosen: bad\n\nrejected: good")
    rows = [labelled(1), turned(labelled(1)), labelled(2), labelled(3)]
    overview = json.loads((prep(rows, "labelled").folder / "overview.json").read_text())
    assert "\n\nbad: It is 2" in overview["duplicates"][0]["removed_text"]
    assert "\n\ngood: It is 2" in overview["duplicates"][0]["witness_text"]
