"""Contamination: which evaluation texts stand in training rows, and what does not count."""

import json
import pickle
import random
import re
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data_prep.contamination import kernels
from data_prep.contamination.evaluation_texts import read_evaluation_set
from data_prep.contamination.index import EvaluationIndex, build_index
from data_prep.contamination.overlaps import find_overlaps
from data_prep.contamination.report import refuse_leaks, report
from data_prep.contamination.settings import ContaminationConfig, EvaluationSet
from data_prep.contamination.tallies import merge, tally
from data_prep.errors import DataError
from data_prep.pipeline import DataConfig

VOCABULARY = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("ane", "eck", "ill", "ong", "ust", "orm")]


def sentence(seed: int, words: int = 30) -> str:
    return " ".join(random.Random(seed).choices(VOCABULARY, k=words))


def write(folder: Path, records: Sequence[object], name: str = "eval.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return str(path)


def indexed(folder: Path, *texts: str, **wanted: Any) -> EvaluationIndex:
    path = write(folder, [{"question": text} for text in texts])
    return build_index(ContaminationConfig.model_validate({"against": [path]} | wanted))


def hits(index: EvaluationIndex, prompt: str, response: str = "") -> list[tuple[str, str, int]]:
    (found,) = find_overlaps(index, [prompt], [response])
    return [(hit.method, hit.kind, index.texts[hit.text].record) for hit in found]


# What is found.


@pytest.mark.parametrize(
    ("change", "method"),
    [
        (lambda t: t, "exact"),
        (lambda t: t.upper().replace(" ", ",  "), "exact"),
        (lambda t: f"{sentence(90, 200)}\n\n{t}\n{sentence(91, 200)}", "exact"),
        (lambda t: " ".join(t.split()[:24]), "ngram"),
        (lambda t: " ".join("x" if i % 8 == 4 else w for i, w in enumerate(t.split())), "fuzzy"),
        (lambda t: " ".join(t.split()[15:] + t.split()[:15]), "fuzzy"),
    ],
)
def test_a_question_is_found_whole_in_part_and_edited(tmp_path, change, method):
    question = sentence(0)
    index = indexed(tmp_path, sentence(1), question, fuzzy={"threshold": 0.7})
    assert hits(index, change(question)) == [(method, "leak", 1)]
    assert hits(index, sentence(2, 300)) == []


def test_the_first_of_several_overlaps_is_the_strongest(tmp_path):
    whole, part = sentence(0), sentence(1)
    index = indexed(tmp_path, part, whole)
    row = " ".join(part.split()[:25]) + f". {whole}"
    assert hits(index, row) == [("exact", "leak", 1), ("ngram", "leak", 0)]


NUMBERED = "a baker made {} loaves on monday and {} on tuesday how many did she make in all"


def test_the_same_question_with_other_figures_is_a_look_alike_unless_asked_to_merge(tmp_path):
    question = NUMBERED.format(12, 30)
    index = indexed(tmp_path, question)
    assert hits(index, NUMBERED.format(12, 31)) == [("ngram", "look-alike", 0)]
    assert hits(index, question + " 7?") == [("exact", "leak", 0)]
    merged = indexed(tmp_path, question, numbers="merge")
    assert hits(merged, NUMBERED.format(12, 31)) == [("ngram", "leak", 0)]


def test_figures_in_words_edited_elsewhere_make_a_look_alike_too(tmp_path):
    words = sentence(3, 28).split()
    question = " ".join([*words[:14], "7", *words[14:]])
    changed = " ".join("x" if i % 9 == 3 else w for i, w in enumerate(question.split()))
    index = indexed(tmp_path, question)
    assert hits(index, changed) == [("fuzzy", "leak", 0)]
    assert hits(index, changed.replace("7", "8")) == [("fuzzy", "look-alike", 0)]


def test_a_part_of_a_text_that_repeats_itself_with_other_figures_is_a_leak(tmp_path):
    question = " ".join(f"{sentence(6, 14)} {i} {i + 1}" for i in range(8))
    half = " ".join(question.split()[:70])
    assert hits(indexed(tmp_path, question), half) == [("ngram", "leak", 0)]


def test_a_row_with_the_question_and_a_copy_with_other_figures_is_a_leak(tmp_path):
    index = indexed(tmp_path, NUMBERED.format(12, 30) + " " + sentence(5))
    row = f"{NUMBERED.format(1, 2)} {sentence(5)}. {NUMBERED.format(12, 30)} {sentence(5, 20)}"
    assert hits(index, row) == [("ngram", "leak", 0)]


def test_a_short_question_counts_only_as_a_whole_prompt_or_a_line_of_it(tmp_path):
    index = indexed(tmp_path, "What is your favourite colour?", "Who am I?", sentence(0))
    assert hits(index, "what is your favourite COLOUR") == [("exact", "leak", 0)]
    assert hits(index, "Be brief.\nWhat is your favourite colour?\n") == [("exact", "leak", 0)]
    assert hits(index, "Tell me: what is your favourite colour? And why?") == []
    assert hits(index, "", "What is your favourite colour?") == []
    assert hits(index, "Who am I?") == [("exact", "leak", 1)]
    assert hits(index, "A poem.\nWho am I?") == []


def test_words_that_texts_of_a_set_share_are_no_evidence(tmp_path):
    template = "The following are multiple choice questions with answers about {}. {} Answer:"
    texts = [template.format("history", sentence(i, 14)) for i in range(20)]
    index = indexed(tmp_path, *texts)
    assert hits(index, template.format("history", sentence(77, 14))) == []
    assert hits(index, sentence(3, 14)) == [("exact", "leak", 3)]
    long = [f"{sentence(50, 60)} {sentence(i, 14)} {sentence(51, 40)}" for i in range(20)]
    index = indexed(tmp_path, *long)
    assert hits(index, f"{sentence(50, 60)} {sentence(99, 14)} {sentence(51, 40)}") == []
    assert hits(index, sentence(4, 14)) == [("exact", "leak", 4)]


def test_words_that_many_share_in_the_middle_are_no_evidence(tmp_path):
    texts = [f"{sentence(i, 12)} {sentence(50, 40)} {sentence(100 + i, 12)}" for i in range(5)]
    index = indexed(tmp_path, *texts, fuzzy=None)
    assert hits(index, sentence(50, 40)) == []
    assert hits(index, texts[2]) == [("exact", "leak", 2)]


def test_figures_beside_a_template_are_compared(tmp_path):
    texts = [f"{sentence(50, 6)} {i} 2 {sentence(i, 12)} 3 4 {sentence(51, 6)}" for i in range(9)]
    index = indexed(tmp_path, *texts)
    assert hits(index, f"5 2 {sentence(5, 12)} 3 4") == [("exact", "leak", 5)]
    assert hits(index, f"5 7 {sentence(5, 12)} 7 4") == [("ngram", "look-alike", 5)]


def test_a_text_that_is_all_template_counts_as_a_whole(tmp_path):
    texts = [f"{sentence(50, 30)} {word}" for word in ("red", "green", "blue", "pink")]
    index = indexed(tmp_path, *texts)
    assert hits(index, sentence(50, 30)) == []
    assert hits(index, f"So: {texts[2]} it is") == [("exact", "leak", 2)]


def test_a_multiple_choice_question_is_found_without_its_options(tmp_path):
    asked, options = sentence(0, 12), "\nA. one\nB. two\nC. three"
    index = indexed(tmp_path, asked + options, "Which of them is true?" + options)
    for row in (asked, asked + "\nA. red\nB. blue", asked + options):
        assert hits(index, row) == [("exact", "leak", 0)]
    assert hits(index, "Which of them is true?") == []
    assert hits(index, "Which of them is true?" + options) == [("exact", "leak", 1)]


@pytest.mark.parametrize(
    ("on", "in_prompt", "in_response"),
    [("prompt", 1, 0), ("response", 0, 1), ("both", 1, 1)],
)
def test_questions_are_looked_for_where_the_set_says(tmp_path, on, in_prompt, in_response):
    path = write(tmp_path, [{"question": sentence(0)}])
    index = build_index(ContaminationConfig.model_validate({"against": [{"path": path, "on": on}]}))
    edited = " ".join("x" if i % 8 == 4 else w for i, w in enumerate(sentence(0).split()))
    for text in (sentence(0), edited, " ".join(sentence(0).split()[3:])):
        assert len(hits(index, text)) == in_prompt
        assert len(hits(index, "", text)) == in_response


def test_answers_are_looked_for_in_responses_and_not_when_short(tmp_path):
    records = [{"question": sentence(0), "answer": sentence(1)}, {"question": "?", "answer": "A"}]
    against = [{"path": write(tmp_path, records), "fields": ["question"], "answers": ["answer"]}]
    index = build_index(ContaminationConfig.model_validate({"against": against}))
    assert hits(index, "", sentence(1)) == [("exact", "leak", 0)]
    assert hits(index, sentence(1)) == []
    assert hits(index, "A", "A") == []


def test_a_method_that_is_off_finds_nothing(tmp_path):
    text = sentence(0)
    part = " ".join(text.split()[:25])
    assert hits(indexed(tmp_path, text, exact=False), text) == [("ngram", "leak", 0)]
    assert hits(indexed(tmp_path, text, ngram=None), text) == [("exact", "leak", 0)]
    assert hits(indexed(tmp_path, text, ngram=None), part) == [("fuzzy", "leak", 0)]
    assert hits(indexed(tmp_path, text, ngram=None, fuzzy=None), part) == []


@pytest.mark.parametrize(
    "text", ["日本語の質問はここにあります。答えは何ですか", "ไทยแลนด์อยู่ที่ไหนครับผม"]
)
def test_questions_in_scripts_without_spaces_are_found(tmp_path, text):
    index = indexed(tmp_path, text)
    assert hits(index, f"これ。{text}。") == [("exact", "leak", 0)]


def test_texts_without_words_are_nowhere(tmp_path):
    index = indexed(tmp_path, "???", sentence(0))
    assert hits(index, "???") == hits(index, "") == []
    assert find_overlaps(index, [], []) == []


# Laws.

small = st.lists(st.sampled_from(["red", "tea", "7", "8", "ox"]), max_size=14).map(" ".join)


def plain(text: str, row: str, size: int, coverage: float) -> tuple[str, str, float] | None:
    """What exact and ngram find, said plainly."""
    wanted, words = text.split(), row.split()
    if f" {text} " in f" {row} ":
        return "exact", "leak", 1.0
    size = min(size, len(wanted))
    runs, there = (
        [tuple(each[i : i + size]) for i in range(len(each) - size + 1)] for each in (wanted, words)
    )
    others = {re.sub("[78]", "0", " ".join(run)) for run in {*there} - {*runs}}
    common = [run for run in runs if run in there or re.sub("[78]", "0", " ".join(run)) in others]
    kind = "leak" if all(run in there for run in common) else "look-alike"
    score = len(common) / len(runs)
    return ("ngram", kind, score) if score >= coverage else None


@given(small.filter(lambda t: len(t.split()) >= 4), small, small, st.sampled_from([0.3, 0.5, 1]))
@settings(max_examples=150)
def test_whole_texts_and_runs_are_found_exactly_as_plain_code_finds_them(text, row, more, coverage):
    wanted = {"min_words": 4, "ngram": {"size": 4, "coverage": coverage}, "fuzzy": None}
    with tempfile.TemporaryDirectory() as folder:
        index = indexed(Path(folder), text, **wanted)
    (found,) = find_overlaps(index, [row], [more])
    expected = [plain(text, each, 4, coverage) for each in (row, more)]
    order = [("exact", "leak"), ("ngram", "leak"), ("ngram", "look-alike")]
    best = min(filter(None, expected), key=lambda e: (order.index(e[:2]), -e[2]), default=None)
    assert [(hit.method, hit.kind, hit.score) for hit in found] == ([best] if best else [])


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=12), st.lists(st.integers(0, 5), max_size=25)
)
@settings(max_examples=200)
def test_the_most_similar_stretch_is_the_best_of_all_stretches(wanted, words):
    best, at = np.empty(1), np.empty(1, np.int64)
    numbers = (np.array(each, np.uint64) for each in (words, wanted))
    row, text = numbers
    ends = (np.array([0]), np.array([len(words)]))
    asked = (np.array([0]), np.array([len(wanted)]))
    longest = len(words) + len(wanted)
    kernels.best_stretch(row, *ends, text, *asked, longest, best, at)
    size = min(len(wanted), len(words))
    scores = [
        len({*words[i : i + size]} & {*wanted}) / len({*words[i : i + size]} | {*wanted})
        for i in range(len(words) - size + 1)
    ]
    assert best[0] == max(scores)
    assert not best[0] or at[0] == scores.index(best[0])


def mixed_rows() -> tuple[EvaluationIndex, list[str], list[str]]:
    rng = random.Random(3)
    texts = [sentence(i, rng.randrange(4, 60)) + f" {i}" for i in range(60)]
    with tempfile.TemporaryDirectory() as folder:
        index = indexed(Path(folder), *texts)
    rows = []
    for _ in range(80):
        words = rng.choice(texts).split()
        words = [rng.choice(VOCABULARY) if rng.random() < 0.05 else word for word in words]
        rows.append(" ".join(rng.choices(VOCABULARY, k=5) + words[: rng.randrange(1, 80)]))
    return index, rows[:40], rows[40:]


INDEX, PROMPTS, RESPONSES = mixed_rows()
FOUND = find_overlaps(INDEX, PROMPTS, RESPONSES)


@given(st.lists(st.integers(1, 39), max_size=5), st.sampled_from([1, 300, 1 << 21]))
@settings(max_examples=40)
def test_batches_change_nothing(cuts, chunk):
    ends = [0, *sorted(set(cuts)), 40]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_prep.contamination.overlaps.CHUNK", chunk)
        batches = [find_overlaps(INDEX, PROMPTS[a:b], RESPONSES[a:b]) for a, b in pairwise(ends)]
    assert [row for batch in batches for row in batch] == FOUND
    assert {hit.method for row in FOUND for hit in row} == {"exact", "ngram", "fuzzy"}


def test_more_pairs_than_there_is_room_for_are_found_all_the_same(monkeypatch):
    monkeypatch.setattr("data_prep.contamination.overlaps.ROOM", 1)
    assert find_overlaps(INDEX, PROMPTS, RESPONSES) == FOUND


def test_an_index_can_be_handed_to_another_process():
    copy = pickle.loads(pickle.dumps(INDEX))
    assert find_overlaps(copy, PROMPTS, RESPONSES) == FOUND


# Evaluation sets.


@pytest.mark.parametrize(
    ("record", "wanted", "expected"),
    [
        ({"id": "1", "question": "q", "answer": "a"}, {}, {"question": "q"}),
        ({"Question": "q", "prompt": "p"}, {}, {"Question": "q"}),
        ({"instruction": "i", "input": "x", "output": "o"}, {}, {"instruction+input": "i\nx"}),
        ({"instruction": "i", "output": "o"}, {}, {"instruction": "i"}),
        ({"question": "", "prompt": "p"}, {}, {"prompt": "p"}),
        ({"turns": ["a", "b"]}, {}, {"turns[0]": "a", "turns[1]": "b"}),
        (
            {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "s"}]},
            {"answers": ["messages"]},
            {"messages[0].content": "u", "messages[1].content": "s"},
        ),
        (
            {"conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "s"}]},
            {},
            {"conversations[0].value": "u"},
        ),
        ({"doc": {"q": [{"t": "x"}]}}, {"fields": ["doc.q.t"]}, {"doc.q[0].t": "x"}),
        ({"a.b": "x", "c+d": "y"}, {"fields": ["a.b", "c+d"]}, {"a.b": "x", "c+d": "y"}),
        ({"q": "x", "c": ["1", "2"]}, {"fields": ["q+c"]}, {"q+c": "x\n1\n2"}),
        ({"p": "x", "s": "y"}, {"fields": ["p"], "answers": ["s"]}, {"p": "x", "s": "y"}),
    ],
)
def test_the_texts_of_a_record_are_found(tmp_path, record, wanted, expected):
    asked = EvaluationSet(path=write(tmp_path, [record]), **wanted)
    found = read_evaluation_set(asked, 0)
    assert {text.field: text.text for text in found.texts} == expected
    assert found.chosen == ("fields" not in wanted)


@pytest.mark.parametrize(
    ("records", "wanted", "problem"),
    [
        ([{"q": "x", "n": 1}], {"fields": ["qq"]}, r"no record has text in 'qq'.*fields: 'q', 'n'"),
        ([{"q": "x"}], {"fields": ["q"], "answers": ["a"]}, "no record has text in 'a'"),
        ([{"q": "x", "label": 1}], {}, r"not clear from its fields: 'q', 'label'.*fields:"),
        ([{"q": " "}], {"fields": ["q"]}, "none of 1 records has text"),
        ([{"q": None}], {"fields": ["q"]}, "no record has text in 'q'"),
        ([], {}, "has no records"),
        (["x"], {}, r"eval.jsonl:1: not a JSON object.*mend the evaluation set"),
    ],
)
def test_an_evaluation_set_in_which_no_text_is_found_is_an_error(
    tmp_path, records, wanted, problem
):
    path = write(tmp_path, records)
    with pytest.raises(DataError) as caught:
        read_evaluation_set(EvaluationSet(path=path, **wanted), 0)
    assert re.search(problem, str(caught.value), re.DOTALL)


def test_a_missing_evaluation_set_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"none\.jsonl"):
        build_index(ContaminationConfig.model_validate({"against": [str(tmp_path / "none.jsonl")]}))


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"against": []}, "at least 1"),
        ({"against": ["a", "a"]}, "listed more than once"),
        ({"against": ["a"], "ngrams": {}}, "ngrams"),
        ({"against": [{"path": "a", "field": "q"}]}, "field"),
        ({"against": [{"path": "a", "on": "all"}]}, "prompt"),
        ({"against": ["a"], "ngram": {"coverage": 0}}, "greater than 0"),
        ({"against": ["a"], "fuzzy": {"threshold": 1.5}}, "less than or equal to 1"),
        ({"against": ["a"], "action": "keep"}, "refuse"),
        ({"against": ["a"], "exact": False, "ngram": None, "fuzzy": None}, "every method is off"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, problem):
    with pytest.raises(ValidationError, match=problem):
        ContaminationConfig.model_validate(wrong)


def test_a_recipe_names_evaluation_sets_by_their_paths_alone():
    data = {"sources": [{"path": "a.jsonl"}], "contamination": {"against": ["eval.jsonl"]}}
    config = DataConfig.model_validate(data).contamination
    assert config is not None
    assert config.against == [EvaluationSet(path="eval.jsonl")]
    schema = DataConfig.model_json_schema()["$defs"]["ContaminationConfig"]
    assert {"type": "string"} in schema["properties"]["against"]["items"]["anyOf"]


# Meanings.


class Letters:
    """Embeds a text as the counts of its letters."""

    name = "letters"

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        counts = [[1e-9] + [text.lower().count(c) for c in "abcdefghijklmnop"] for text in texts]
        vectors = np.array(counts, np.float32).reshape(len(texts), 17)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_texts_of_one_meaning_are_found_and_other_figures_keep_them_apart(tmp_path):
    embedder = Letters()
    path = write(tmp_path, [{"question": "abc def 3"}, {"question": "ponm"}, {"question": "ag"}])
    config = ContaminationConfig.model_validate({"against": [path], "semantic": {}})
    index = build_index(config, embedder=embedder)
    prompts, responses = ["fed cba", "fed cba 4", "lk", ""], ["", "", "mnop", ""]
    found = find_overlaps(index, prompts, responses, embedder)
    brief = [[(h.method, h.kind, h.side, h.score) for h in row] for row in found]
    assert brief == [
        [("semantic", "leak", "prompt", 1.0)],
        [("semantic", "look-alike", "prompt", 1.0)],
        [("semantic", "leak", "response", 1.0)],
        [],
    ]
    assert found[2][0].where == f"{path}:2"


def test_a_model_that_is_missing_or_another_is_refused(tmp_path):
    path = write(tmp_path, [{"question": "abc"}])
    config = ContaminationConfig.model_validate({"against": [path], "semantic": {}})
    with pytest.raises(DataError, match="needs a sentence-embedding model"):
        build_index(config)
    with pytest.raises(DataError, match="embedded with letters, the rows would be with none"):
        find_overlaps(build_index(config, embedder=Letters()), ["a"], ["b"])


# The report.


def reported(cuts: Sequence[int], order: int = 1):
    ends = [0, *cuts, 40]
    parts = []
    for a, b in pairwise(ends):
        places = [f"r.jsonl:{i}" for i in range(a, b)]
        parts.append(tally(INDEX, places, PROMPTS[a:b], RESPONSES[a:b], FOUND[a:b]))
    return report(INDEX, merge(parts[::order], INDEX.config.examples))


def test_a_report_is_the_same_for_any_batches_in_any_order():
    whole = reported([])
    assert reported([3, 17, 30]) == reported([3, 17, 30], -1) == reported([20]) == whole
    (one,) = whole.sets
    leaked = {INDEX.texts[h.text].record for row in FOUND for h in row if h.kind == "leak"}
    assert one.records_leaked == len(leaked) > 5
    assert one.records == 60
    assert whole.rows_leaked == sum(any(h.kind == "leak" for h in row) for row in FOUND)
    assert sum(one.rows_leaked.values()) == whole.rows_leaked
    assert 0 < len([e for e in one.examples if e.overlap.kind == "leak"]) <= 5
    assert {e.overlap.method for e in one.examples} >= {"exact", "ngram"}


def test_a_report_says_what_leaked_and_what_was_not_looked_for(tmp_path):
    records = [
        {"q": sentence(0), "a": sentence(1)},
        {"q": "What is this?", "a": "B"},
        {"q": "", "a": ""},
    ]
    against = [{"path": write(tmp_path, records), "name": "own", "fields": ["q"], "answers": ["a"]}]
    index = build_index(ContaminationConfig.model_validate({"against": against}))
    prompts, responses = [sentence(0), "x", sentence(0) + " y"], ["", sentence(1), ""]
    found = tally(
        index, ["r:1", "r:2", "r:3"], prompts, responses, find_overlaps(index, prompts, responses)
    )
    whole = report(index, found)
    assert whole.summary() == [
        "contamination: 3 of 3 training rows hold a leak",
        "  own: 1 of 3 records leaked (33.3%); rows: 3 exact",
        "    compared: q, a",
        "    1 texts are short: only equal prompts and lines count",
        "    1 texts are too short to be looked for",
        "    1 records have no text in these fields",
    ]


def test_a_record_that_is_leaked_is_not_counted_as_a_look_alike_too(tmp_path):
    index = indexed(tmp_path, NUMBERED.format(1, 2), NUMBERED.replace("loaves", "x").format(3, 4))
    prompts = [NUMBERED.format(1, 2), NUMBERED.format(5, 2)]
    found = find_overlaps(index, prompts, ["", ""])
    whole = report(index, tally(index, ["r:1", "r:2"], prompts, ["", ""], found))
    (one,) = whole.sets
    assert (one.records_leaked, one.rows_leaked, one.rows_like) == (1, {"exact": 1}, {"ngram": 1})
    assert one.records_like == len({h.text for row in found for h in row}) - 1


def test_leaks_are_refused_only_when_asked_to(tmp_path):
    index = indexed(tmp_path, sentence(0), action="refuse")

    def found(prompt: str):
        return report(
            index, tally(index, ["r:7"], [prompt], [""], find_overlaps(index, [prompt], [""]))
        )

    refuse_leaks(found("clean"), index.config)
    refuse_leaks(found(sentence(0)), index.config.model_copy(update={"action": "report"}))
    with pytest.raises(DataError) as caught:
        refuse_leaks(found(sentence(0)), index.config)
    message = str(caught.value)
    assert "1 of 1 training rows hold a leak" in message
    assert re.search(r"r:7: .*question of .*eval.jsonl:1: in the prompt, exact 1.00", message)
    assert "contamination.action=drop" in message


def test_examples_show_the_words_around_the_match(tmp_path):
    question = sentence(0)
    index = indexed(tmp_path, question)
    row = f"{sentence(5, 400)} {question} {sentence(6, 400)}"
    found = report(index, tally(index, ["r:1"], [""], [row], find_overlaps(index, [""], [row])))
    (example,) = found.sets[0].examples
    assert question in example.training
    assert example.evaluation == question
    assert len(example.training) < 320
    assert (example.row, example.overlap.side) == ("r:1", "response")


def test_a_text_in_very_many_rows_is_pointed_out(tmp_path):
    index = indexed(tmp_path, sentence(0), sentence(1))
    prompts = [sentence(0)] * 12 + [sentence(1)]
    places = [f"r:{i}" for i in range(13)]
    found = report(
        index, tally(index, places, prompts, prompts, find_overlaps(index, prompts, prompts))
    )
    assert [(each.rows, each.text) for each in found.sets[0].crowded] == [(12, sentence(0))]
    assert "1 texts stand in over 1% of the rows: a template?" in found.summary()[-1]


def test_a_question_and_its_answer_make_one_leaked_record(tmp_path):
    records = [{"question": sentence(0), "answer": sentence(1)}]
    against = [{"path": write(tmp_path, records), "answers": ["answer"]}]
    index = build_index(ContaminationConfig.model_validate({"against": against}))
    rows = [sentence(0)], [sentence(1)]
    (found,) = find_overlaps(index, *rows)
    assert [(hit.field, hit.side) for hit in found] == [
        ("question", "prompt"),
        ("answer", "response"),
    ]
    whole = report(index, tally(index, ["r:1"], *rows, [found]))
    assert (whole.sets[0].records_leaked, whole.sets[0].rows_leaked) == (1, {"exact": 1})
