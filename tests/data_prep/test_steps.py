"""Every step that takes rows out, through the whole of `prepare`, with its ledger and its audit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from tiny_tokenizer import alpaca, dropped, write_jsonl
from word_embedder import WordEmbedder

from data_prep.auditing import audit_prepared
from data_prep.errors import DataError
from data_prep.pipeline import prepare
from data_prep.prepared import PreparedDataset
from data_prep.settings import DataConfig

WORDS = [
    *("red", "green", "blue", "fox", "dog", "bird", "tree", "lake"),
    *("hill", "road", "house", "door", "bread", "water", "stone"),
]


class ToyModels:
    """An embedder by words, and a scorer that takes a text's length for its perplexity."""

    def __init__(self) -> None:
        self.words = WordEmbedder()
        self.scored = 0

    def embedder(self, name: str) -> WordEmbedder:
        return self.words

    def scorer(self, name: str | None, max_tokens: int) -> Any:
        models = self

        class Scorer:
            name = "length"

            def score(self, texts):
                models.scored += len(texts)
                return np.array([float(len(text)) for text in texts])

        return Scorer()


def sentence(number: int, words: int = 12) -> str:
    """Words that differ from those of every other number."""
    rng = np.random.default_rng(number)
    return " ".join(f"{WORDS[i]}{name(number)}" for i in rng.integers(0, len(WORDS), words))


def name(number: int) -> str:
    """A number as letters: rows that differ in figures are no near-duplicates."""
    return "".join(chr(97 + int(digit)) for digit in str(number))


def row(number: int, answer: str | None = None, **fields: Any) -> dict[str, Any]:
    answer = sentence(number) if answer is None else answer
    return {"instruction": f"Speak of {name(number)}.", "output": answer} | fields


@pytest.fixture
def prep(tmp_path: Path, chatml):
    """Prepare rows with settings, hold the ledger's law, and replay every certificate."""

    def run(rows: list[object], models=None, **settings: Any) -> PreparedDataset:
        source = {"path": write_jsonl(tmp_path / "rows.jsonl", rows)} | settings.pop("source", {})
        config = DataConfig.model_validate({"sources": [source]} | settings)
        folder = tmp_path / "prepared"
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        prepared = prepare(config, chatml, folder, models=models)
        balances(prepared)
        assert audit_prepared(config, chatml, prepared, models).problems == []
        return prepared

    return run


def balances(prepared: PreparedDataset) -> None:
    f = prepared.figures
    kept = f["rows_kept"] + f["rows_truncated"] + f["rows_split"]
    assert f["rows_in"] == kept + f["rows_dropped"]
    assert f["tokens_in"] == f["tokens_kept"] + f["tokens_cut"] + f["tokens_dropped"]
    gone = dropped(prepared)
    assert len(gone) == f["rows_dropped"]
    assert sum(entry["tokens"] for entry in gone) == f["tokens_dropped"]


def trained(prepared: PreparedDataset, split: str = "train") -> list[int]:
    """Lines of the rows in a split, in order of their lines."""
    places = prepared.sequences(split).column("rows").to_pylist()
    return sorted(int(place.rpartition(":")[2]) for pack in places for place in pack)


# Filters.


def test_rows_that_a_filter_drops_are_counted_with_their_tokens_and_the_reason(prep):
    rows = [row(1), row(2, "no"), row(3)]
    prepared = prep(rows, filters=[{"kind": "words", "on": "response", "min": 5}])
    (entry,) = dropped(prepared)
    assert (entry["reason"], entry["detail"]) == ("filter words", "1 words in response, min=5")
    assert int(entry["tokens"]) > 5
    assert trained(prepared) == [1, 3]


def test_filters_judge_before_overlong_rows_are_counted(prep):
    rows = [row(1), row(2, sentence(2, 200))]
    prepared = prep(rows, filters=[{"kind": "tokens", "max": 200}], max_tokens=200)
    assert prepared.figures["dropped"] == {"filter tokens": 1}


def test_personal_data_is_masked_in_what_is_trained_and_counted(prep, chatml):
    rows = [row(1, f"Write to ann@mail.org. {sentence(1)}"), row(2)]
    prepared = prep(rows, filters=[{"kind": "personal", "action": "mask"}])
    assert prepared.figures["personal_masked"] == {"email": 1}
    texts = [chatml.tokenizer.decode(s.ids) for s in prepared.samples()]
    assert any("<EMAIL>" in text for text in texts)
    assert not any("ann@mail.org" in text for text in texts)


def test_rows_that_a_mask_makes_equal_are_duplicates_and_their_certificates_hold(prep):
    text = "Write to {}. " + sentence(5)
    rows = [row(5, text.format("ann@mail.org")), row(5, text.format("bob@mail.org")), row(6)]
    prepared = prep(rows, filters=[{"kind": "personal", "action": "mask"}])
    assert prepared.figures["dropped"] == {"exact duplicate": 1}


def test_perplexity_is_asked_of_rows_that_other_filters_left(prep):
    models = ToyModels()
    rows = [row(1), row(2, sentence(2, 60)), row(3, "no")]
    filters = [{"kind": "perplexity", "max": 300}, {"kind": "words", "on": "response", "min": 5}]
    prepared = prep(rows, models, filters=filters)
    assert prepared.figures["dropped"] == {"filter perplexity": 1, "filter words": 1}
    assert models.scored == 2


def test_a_model_that_nobody_handed_in_is_asked_for_in_words(prep):
    with pytest.raises(DataError, match=r"ask for a model \(the base model\), and none can be"):
        prep([row(1)], filters=[{"kind": "perplexity", "max": 9}])


# Typed markers.


def test_typed_markers_are_escaped_counted_and_no_turn_is_made_of_them(prep, chatml):
    rows = [row(1, f"<|im_end|>\n<|im_start|>user {sentence(1)}"), row(2)]
    prepared = prep(rows, markers="escape")
    assert prepared.figures["rows_escaped"] == 1
    assert prepared.figures["rows_dropped"] == 0
    for sample in prepared.samples():
        assert sample.ids.count(chatml.stop_id) == len(sample.messages) + 1


# Duplicates.


def test_rows_with_the_same_words_are_dropped_when_asked_for(prep):
    rows = [row(1), row(1, f"{sentence(1).title()}!"), row(2)]
    prepared = prep(rows, dedup={"same_words": True})
    assert prepared.figures["dropped"] == {"duplicate but for case and punctuation": 1}


def test_semantic_duplicates_go_with_a_certificate_that_the_audit_recomputes(prep):
    rows = [
        row(1, "A rapid automobile is what many buyers want to purchase first."),
        row(2, "A fast car is what many buyers want to buy first."),
        row(3),
    ]
    semantic = {"threshold": 0.9, "on": "response"}
    prepared = prep(rows, ToyModels(), dedup={"semantic": semantic, "minhash": {}})
    (entry,) = dropped(prepared)
    assert entry["reason"] == "semantic duplicate"


def test_rows_that_the_embedding_model_cannot_read_are_counted(prep):
    rows = [row(1), row(2, "?!"), row(3, "..."), row(4)]
    semantic = {"semantic": {"threshold": 0.9, "on": "response"}}
    (note,) = prep(rows, ToyModels(), dedup=semantic).figures["notes"]
    assert note.startswith("dedup.semantic: 2 rows were compared with none, because the embedding")
    assert prep(rows[::3], ToyModels(), dedup=semantic).figures["notes"] == []


# Evaluation sets.

QUESTION = "How many apples does the farmer have left after he gave seven of his twelve to Ann?"


@pytest.fixture
def evaluation(tmp_path: Path) -> str:
    lines = [{"question": QUESTION}, {"question": f"What is a {sentence(99)}?"}]
    return write_jsonl(tmp_path / "eval.jsonl", lines)


def test_rows_that_hold_an_evaluation_text_are_dropped_with_the_text_as_witness(prep, evaluation):
    rows = [row(1), alpaca(2, sentence(2)) | {"instruction": QUESTION.upper()}, row(3)]
    prepared = prep(rows, contamination={"against": [evaluation]})
    (entry,) = dropped(prepared)
    assert entry["reason"] == "in an evaluation set"
    assert f"{evaluation}:1" in str(entry["detail"])
    found = prepared.figures["contamination"]
    assert (found["rows"], found["rows_leaked"]) == (3, 1)
    assert found["sets"][0]["records_leaked"] == 1


def test_evaluation_texts_may_be_reported_or_refused_instead(prep, evaluation):
    rows = [row(1), alpaca(2, sentence(2)) | {"instruction": QUESTION}]
    reported = prep(rows, contamination={"against": [evaluation], "action": "report"})
    assert trained(reported) == [1, 2]
    assert reported.figures["contamination"]["rows_leaked"] == 1
    with pytest.raises(DataError, match=r"rows\.jsonl:2: .*exact 1\.00"):
        prep(rows, contamination={"against": [evaluation], "action": "refuse"})


def test_rows_that_mean_an_evaluation_text_go_with_a_cosine_that_the_audit_recomputes(
    prep, tmp_path
):
    path = write_jsonl(tmp_path / "eval.jsonl", [{"question": "buy a fast car today"}])
    rows = [row(1), row(2) | {"instruction": "purchase a rapid automobile today"}]
    prepared = prep(rows, ToyModels(), contamination={"against": [path], "semantic": {}})
    (line,) = (prepared.folder / "overlaps.jsonl").read_text().splitlines()
    overlap = json.loads(line)["overlap"]
    assert (overlap["method"], overlap["model"]) == ("semantic", "words@1")
    assert trained(prepared) == [1]


class RoundingEmbedder(WordEmbedder):
    """Rounds by how many texts are embedded together, as models do."""

    def embed(self, texts):
        return super().embed(texts) * np.float32(1 + 1e-6 * (len(texts) % 7))


def test_evaluation_texts_have_the_same_cosines_for_shards_of_any_size(tmp_path, chatml):
    models = ToyModels()
    models.words = RoundingEmbedder()
    source = {"path": write_jsonl(tmp_path / "rows.jsonl", [row(n) for n in range(20)])}
    path = write_jsonl(tmp_path / "eval.jsonl", [{"question": sentence(n)} for n in (3, 4, 15)])
    settings = {"against": [path], "exact": False, "ngram": None, "fuzzy": None, "semantic": {}}
    found = []
    for size in (3, 1000):
        folder = tmp_path / str(size)
        folder.mkdir()
        config = {"sources": [source], "contamination": settings, "workers": 1, "shard_rows": size}
        prepare(DataConfig.model_validate(config), chatml, folder, models=models)
        found.append((folder / "overlaps.jsonl").read_bytes())
    assert found[0] == found[1]
    assert len(found[0].splitlines()) == 3


def test_an_evaluation_set_that_is_trained_on_is_refused(prep, tmp_path):
    link = tmp_path / "link.jsonl"
    link.symlink_to(tmp_path / "rows.jsonl")
    for path in (tmp_path / "rows.jsonl", link, tmp_path / "*.jsonl"):
        with pytest.raises(DataError, match=r"\.jsonl is trained on as well.*one of the two"):
            prep([row(1), row(2)], contamination={"against": [str(path)]})


def test_a_planted_wrong_overlap_fails_the_audit(prep, evaluation, chatml, tmp_path):
    rows = [row(1), alpaca(2, sentence(2)) | {"instruction": QUESTION}]
    settings = {"contamination": {"against": [evaluation]}}
    prepared = prep(rows, **settings)
    path = prepared.folder / "overlaps.jsonl"
    claim = json.loads(path.read_text())
    claim["overlap"]["where"] = f"{evaluation}:2"
    path.write_text(json.dumps(claim) + "\n")
    config = DataConfig.model_validate(
        {"sources": [{"path": str(tmp_path / "rows.jsonl")}]} | settings
    )
    problem, *_ = audit_prepared(config, chatml, prepared).problems
    assert "rows.jsonl:2: " in problem


def test_a_planted_wrong_witness_fails_the_audit(prep, chatml, tmp_path):
    prepared = prep([row(1), row(1), row(2)])
    path = prepared.folder / "certificates.jsonl"
    line = json.loads(path.read_text())
    line["witness"] = line["witness"].replace(":1", ":3")
    path.write_text(json.dumps(line) + "\n")
    config = DataConfig(sources=[{"path": str(tmp_path / "rows.jsonl")}])
    problem, *_ = audit_prepared(config, chatml, prepared).problems
    assert "is not equal to its witness" in problem


# Validation.


def test_near_duplicates_are_never_parted_by_the_split(prep):
    rows = [row(n, f"{sentence(n // 2, 40)} {WORDS[n % 15]}") for n in range(40)]
    prepared = prep(rows, validation=0.3)
    sides = [{(line - 1) // 2 for line in trained(prepared, s)} for s in ("train", "validation")]
    assert sides[0] | sides[1] == set(range(20))
    assert not sides[0] & sides[1]
    questions = prep(rows, validation=0.3, keep_together="questions")
    parted = [{(line - 1) // 2 for line in trained(questions, s)} for s in ("train", "validation")]
    assert parted[0] & parted[1]


def test_the_field_that_keeps_rows_together_is_not_one_that_nothing_is_made_of(prep):
    rows = [row(n, talk=n, note="x") for n in range(4)]
    assert prep(rows, source={"group": "talk"}).figures["fields_unused"] == {"note": 4}
    assert prep(rows).figures["fields_unused"] == {"note": 4, "talk": 4}


def test_rows_with_one_value_of_the_group_field_are_never_parted(prep):
    rows = [row(n, talk=n % 6) for n in range(30)]
    prepared = prep(rows, validation=0.4, source={"group": "talk"})
    sides = [{(line - 1) % 6 for line in trained(prepared, s)} for s in ("train", "validation")]
    assert sides[0] | sides[1] == set(range(6))
    assert not sides[0] & sides[1]


@pytest.mark.parametrize(("sizes", "held_out"), [((30, 20), 20), ((99, 1), 1)])
def test_a_split_that_groups_make_far_larger_or_smaller_than_asked_for_says_so(
    prep, sizes, held_out
):
    asked = 1 if held_out > 10 else 30
    rows = [row(n, talk=int(n < sizes[0])) for n in range(sum(sizes))]
    prepared = prep(rows, validation=asked, source={"group": "talk"})
    assert prepared.figures["validation_rows"] == held_out
    (note,) = prepared.figures["notes"]
    assert note.startswith(f"warning: validation={asked} is {asked} of {sum(sizes)} rows, and ")
    assert f"and {held_out} are held out: " in note
    assert "have one value of group" in note
    assert prep(rows, validation=asked).figures["notes"] == []


def test_one_group_that_holds_every_row_cannot_be_split_and_the_error_says_why(prep):
    with pytest.raises(DataError, match=r"0 rows for training, 9 for .* value of group .* its own"):
        prep([row(n, talk=1) for n in range(9)], validation=2, source={"group": "talk"})


def test_a_row_without_the_group_field_is_refused(prep):
    with pytest.raises(DataError, match=r"rows\.jsonl:2: missing field: 'talk', which keeps rows"):
        prep([row(1, talk="a"), row(2)], source={"group": "talk"})


def test_training_rows_that_nearly_say_a_validation_row_are_dropped(prep, tmp_path):
    own = write_jsonl(tmp_path / "own.jsonl", [row(50, sentence(7, 40)), row(60)])
    rows = [row(1), row(7, sentence(7, 40) + " indeed")]
    prepared = prep(rows, validation={"path": own})
    (entry,) = dropped(prepared)
    assert (entry["reason"], entry["witness"]) == ("also in validation", f"{own}:1")


def test_training_rows_with_the_group_of_a_validation_row_are_dropped(prep, tmp_path):
    own = write_jsonl(tmp_path / "own.jsonl", [row(50, talk="a"), row(60)])
    rows = [row(1, talk="b"), row(2, talk="a"), row(3, talk="c")]
    with pytest.raises(DataError, match=r"own\.jsonl:2: missing field: 'talk'"):
        prep(rows, source={"group": "talk"}, validation={"path": own, "group": "talk"})
    (tmp_path / "own.jsonl").write_text(json.dumps(row(50, talk="a")) + "\n", encoding="utf-8")
    prepared = prep(rows, source={"group": "talk"}, validation={"path": own, "group": "talk"})
    (entry,) = dropped(prepared)
    assert (entry["reason"], entry["witness"]) == ("also in validation", f"{own}:1")
    assert trained(prepared) == [1, 3]


def test_rows_without_a_group_are_not_taken_for_rows_of_one_group(prep, tmp_path):
    own = write_jsonl(tmp_path / "own.jsonl", [row(50)])
    assert trained(prep([row(1), row(2)], validation={"path": own})) == [1, 2]


# Selection.


def test_the_longest_rows_are_chosen_beside_as_many_at_random(prep):
    rows = [row(n, sentence(n, 5 + 9 * n)) for n in range(20)]
    prepared = prep(rows, select={"kind": "top_tokens", "count": 5})
    assert trained(prepared) == [16, 17, 18, 19, 20]
    assert prepared.figures["dropped"] == {"not selected": 15}
    assert prepared.figures["comparison_rows"] == 5
    random = trained(prepared, "comparison")
    assert len(random) == 5
    assert random != [16, 17, 18, 19, 20]


@pytest.mark.parametrize("kind", ["mmr", "k_centre"])
def test_rows_unlike_each_other_are_chosen_by_their_embeddings(prep, kind):
    rows = [row(n, sentence(n % 4)) for n in range(20)]
    select = {"kind": kind, "count": 4, "on": "response", "compare_random": False}
    prepared = prep(rows, ToyModels(), select=select)
    assert {(line - 1) % 4 for line in trained(prepared)} == {0, 1, 2, 3}
    assert not (prepared.folder / "comparison.arrow").exists()


def test_a_selection_of_more_rows_than_there_are_says_so(prep):
    prepared = prep([row(1), row(2)], select={"kind": "top_tokens", "count": 5})
    (note,) = prepared.figures["notes"]
    assert note.startswith("5 rows were asked for and there are 2")


# Mixtures.


def mixed(tmp_path: Path, chatml, weights, mixture=None, counts=(12, 4), **settings):
    sources = [
        {"path": write_jsonl(tmp_path / f"{i}.jsonl", rows), "weight": weight}
        for i, weight in enumerate(weights)
        for rows in [[row(100 * i + n) for n in range(counts[i])]]
    ]
    config = {"sources": sources, "mixture": mixture} | settings
    folder = tmp_path / f"prepared{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    prepared = prepare(DataConfig.model_validate(config), chatml, folder)
    balances(prepared)
    places = prepared.sequences("train").column("rows").to_pylist()
    return prepared, [
        sum(place.startswith(f"{tmp_path}/{i}.jsonl") for pack in places for place in pack)
        for i in range(len(weights))
    ]


def test_sources_are_mixed_by_their_weights_and_what_is_left_out_is_counted(tmp_path, chatml):
    prepared, used = mixed(tmp_path, chatml, [1, 1], {"by": "rows"})
    assert used == [4, 4]
    assert prepared.figures["dropped"] == {"left out by the mixture": 8}


def test_scarcer_sources_are_repeated_when_all_rows_are_to_be_used(tmp_path, chatml):
    prepared, used = mixed(tmp_path, chatml, [1, 1], {"by": "rows", "until": "all"})
    assert used == [12, 12]
    assert prepared.figures["rows_kept"] == 16
    assert prepared.figures["train_rows"] == 24


def test_of_cut_rows_a_mixture_counts_what_is_trained_on(tmp_path, chatml):
    """Not the tokens that were cut off: sources of long rows would get less than their share."""
    sources = [
        {"path": write_jsonl(tmp_path / "long.jsonl", [row(n, sentence(n, 90)) for n in range(8)])},
        {
            "path": write_jsonl(
                tmp_path / "short.jsonl", [row(n, sentence(n)) for n in range(20, 60)]
            )
        },
    ]
    config = DataConfig.model_validate(
        {
            "sources": [source | {"weight": 1} for source in sources],
            "max_tokens": 150,
            "overlong": "truncate",
        }
    )
    prepared = prepare(config, chatml, tmp_path)
    trained_on = {"long": 0, "short": 0}
    for pack in prepared.sequences("train").to_pylist():
        for place, length in zip(pack["rows"], pack["row_lengths"], strict=True):
            trained_on[Path(place).stem] += length
    assert trained_on["long"] == 8 * 150
    assert abs(trained_on["short"] - trained_on["long"]) < 150


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"sources": [{"path": "a.jsonl", "weight": 1}, {"path": "b.jsonl"}]}, "b.jsonl has none"),
        ({"mixture": {}}, "needs weights"),
        (
            {
                "sources": [{"path": "a.jsonl", "weight": 1}],
                "select": {"kind": "random", "count": 3},
            },
            "leave one of them out",
        ),
    ],
)
def test_weights_that_make_no_sense_are_refused(settings, problem):
    with pytest.raises(ValidationError, match=problem):
        DataConfig.model_validate({"sources": [{"path": "a.jsonl"}]} | settings)


# Long rows.


def test_long_rows_are_split_between_turns_and_nothing_is_lost(prep, chatml):
    turns = [
        {"role": role, "content": sentence(10 + n)}
        for n in range(6)
        for role in ("user", "assistant")
    ]
    rows = [{"messages": turns}, {"messages": turns[:2]}]
    prepared = prep(rows, max_tokens=400, overlong="split")
    figures = prepared.figures
    assert (figures["rows_split"], figures["rows_kept"], figures["tokens_cut"]) == (1, 1, 0)
    assert figures["pieces"] >= 2
    assert [sample.messages for sample in prepared.samples()] == [turns[:1]]
    for sequence in prepared.sequences("train").to_pylist():
        start = 0
        for length in sequence["row_lengths"]:
            piece = sequence["input_ids"][start : start + length]
            assert chatml.tokenizer.decode(piece).startswith("<|im_start|>user")
            start += length


# What training shares with a validation source of its own.


@pytest.fixture
def leaking(tmp_path: Path, chatml):
    """Rows of which three are tied to validation: by question, by words, by group."""
    own = write_jsonl(tmp_path / "own.jsonl", [row(50, sentence(7, 40), talk=9), row(60, talk=8)])
    rows = [
        row(1, talk=1),
        row(60, sentence(2), talk=2),
        row(7, f"{sentence(7, 40)} indeed", talk=3),
        row(4, talk=9),
    ]
    source = {"path": write_jsonl(tmp_path / "rows.jsonl", rows), "group": "talk"}
    config = DataConfig.model_validate(
        {"sources": [source], "validation": {"path": own, "group": "talk"}}
    )
    return config, prepare(config, chatml, tmp_path)


def test_rows_that_validation_has_are_certified_by_question_words_and_group(leaking, chatml):
    config, prepared = leaking
    lines = (prepared.folder / "certificates.jsonl").read_text().splitlines()
    found = {line["removed"][-1]: line["measure"] for line in map(json.loads, lines)}
    assert found == {"2": "question", "3": "jaccard", "4": "group"}
    assert audit_prepared(config, chatml, prepared).problems == []


def test_a_short_row_with_the_words_of_a_row_of_validation_is_dropped(tmp_path, chatml):
    """Too few words to be near-duplicates, and another question to the letter."""
    short = {"instruction": "What is it?", "output": "A fox."}
    own = write_jsonl(tmp_path / "own.jsonl", [short])
    near = {"instruction": "What is it", "output": "a fox"}
    other = {"instruction": "It is what", "output": "a fox"}
    rows = write_jsonl(tmp_path / "rows.jsonl", [near, other])
    config = DataConfig.model_validate({"sources": [{"path": rows}], "validation": {"path": own}})
    prepared = prepare(config, chatml, tmp_path)
    (gone,) = dropped(prepared)
    assert (gone["where"][-1], gone["reason"], gone["witness"]) == (
        "1",
        "also in validation",
        f"{own}:1",
    )
    assert audit_prepared(config, chatml, prepared).problems == []


def test_rows_with_the_same_words_are_not_parted(prep):
    pairs = [
        [{"instruction": f"What is {name(i)}?"}, {"instruction": f"what is {name(i)}"}]
        for i in range(20)
    ]
    rows = [{"output": "a fox"} | each for pair in pairs for each in pair]
    prepared = prep(rows, validation=10)
    lines = trained(prepared, "validation")
    assert len(lines) == 10
    assert {(line - 1) // 2 for line in lines[::2]} == {(line - 1) // 2 for line in lines[1::2]}


@pytest.mark.parametrize(
    ("line", "change", "problem"),
    [
        (0, ("own.jsonl:2", "own.jsonl:1"), "does not ask what its witness asks"),
        (1, ("own.jsonl:1", "own.jsonl:2"), "similar, counted"),
        (2, ("own.jsonl:1", "rows.jsonl:1"), "did not stay"),
    ],
)
def test_a_planted_wrong_row_of_validation_fails_the_audit(leaking, chatml, line, change, problem):
    config, prepared = leaking
    path = prepared.folder / "certificates.jsonl"
    lines = path.read_text().splitlines()
    lines[line] = lines[line].replace(*change)
    path.write_text("\n".join(lines) + "\n")
    found, *_ = audit_prepared(config, chatml, prepared).problems
    assert problem in found


def test_a_weighted_source_of_which_nothing_is_left_is_refused(tmp_path, chatml):
    with pytest.raises(DataError, match=r"1\.jsonl: has a weight of 1.0, and no row of it is left"):
        mixed(tmp_path, chatml, [1, 1], filters=[{"kind": "pattern", "pattern": "b[a-j]{2}\\."}])
