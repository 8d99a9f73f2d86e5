"""The audit of contamination: true certificates hold, planted wrong ones fail."""

import json
import random
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from word_embedder import WordEmbedder

from data_prep.contamination.auditing import Claim, audit_contamination
from data_prep.contamination.index import build_index
from data_prep.contamination.overlaps import find_overlaps
from data_prep.contamination.plain_words import is_figure, plain_words
from data_prep.contamination.settings import ContaminationConfig
from data_prep.contamination.words import words_of
from data_prep.rows import Completion

VOCABULARY = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("ane", "eck", "ill", "ong", "ust", "orm")]
TEMPLATE = "The following is question {} about {}.\n\n{}\nA. {}\nB. {}\nAnswer:"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
@settings(max_examples=300)
def test_the_audit_finds_the_words_that_the_search_finds(text):
    found, independent = words_of([text]), plain_words(text)
    ids: dict[int, str] = {}
    for value, word in zip(found.words.tolist(), independent, strict=True):
        assert ids.setdefault(value, word) == word
    assert len(set(ids.values())) == len(ids)
    assert found.numeric.tolist() == [is_figure(word) for word in independent]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't stop, e-mail ME.", ["don", "t", "stop", "e", "mail", "me"]),
        ("3 + 4 = 7; x-1 - y", ["3", "+", "4", "=", "7", "x", "-", "1", "-", "y"]),
        ("日本語 text", ["日本", "本語", "text"]),
        ("\ufb01ne \uff21\uff22\uff23 Straße", ["fine", "abc", "strasse"]),
    ],
)
def test_words_of_a_text(text, expected):
    assert plain_words(text) == expected


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(VOCABULARY, k=count))


def records() -> list[dict[str, Any]]:
    """Questions in a template, with options; short ones; numbered ones; and long answers."""
    rng = random.Random(1)
    made = []
    for i in range(24):
        asked = words(rng, rng.randrange(2, 40)) + (f" {i} and {i + 5} " if i % 3 else " ")
        asked += words(rng, rng.randrange(1, 20))
        text = TEMPLATE.format(i, "history", asked, words(rng, 2), words(rng, 3))
        made.append({"q": text if i % 4 else asked, "a": words(rng, rng.randrange(1, 30))})
    return [*made, {"q": "Who is it, please?", "a": "me"}, {"q": "", "a": words(rng, 20)}]


RECORDS = records()
FOLDER = Path(tempfile.mkdtemp())
SET = FOLDER / "eval.jsonl"
SET.write_text("".join(json.dumps(record) + "\n" for record in RECORDS), encoding="utf-8")


def configured(**wanted: Any) -> ContaminationConfig:
    against = [{"path": str(SET), "name": "own", "fields": ["q"], "answers": ["a"]}]
    return ContaminationConfig.model_validate({"against": against} | wanted)


CONFIGS = {
    "default": configured(),
    "fuzzy": configured(ngram=None, min_words=4, fuzzy={"threshold": 0.5, "min_words": 8}),
    "runs": configured(fuzzy=None, min_words=5, ngram={"size": 5, "coverage": 0.2}),
    "merge": configured(numbers="merge", exact=False),
}
INDEXES = {name: build_index(config) for name, config in CONFIGS.items()}


def changed(rng: random.Random, text: str) -> str:
    change = rng.choice(["case", "edit", "cut", "figures", "inside", "none"])
    split = text.split(" ")
    if change == "edit":
        return " ".join(rng.choice(VOCABULARY) if rng.random() < 0.1 else w for w in split)
    if change == "cut":
        return " ".join(split[: max(1, int(len(split) * 0.8))])
    if change == "figures":
        return re.sub(r"[0-9]+", lambda m: str(int(m[0]) + rng.choice([0, 7])), text)
    inside = f"{words(rng, 30)} 5\n{text}\n{words(rng, 30)}"
    return {"case": text.upper(), "inside": inside}.get(change, text)


def claims_of(name: str, rows: dict[str, Completion]) -> tuple[list[Claim], list[str]]:
    prompts, responses = zip(*((row.prompt, row.completion) for row in rows.values()))
    found = find_overlaps(INDEXES[name], prompts, responses)
    claims = [Claim(row, hit) for row, hits in zip(rows, found, strict=True) for hit in hits]
    dropped = [row for row, hits in zip(rows, found) if hits and hits[0].kind == "leak"]
    return claims, dropped


@given(st.integers(0, 2**32), st.sampled_from(sorted(CONFIGS)))
@settings(max_examples=60)
def test_every_certificate_holds(seed, name):
    rng = random.Random(seed)
    rows = {}
    for i in range(8):
        record = rng.choice(RECORDS)
        prompt, answer = changed(rng, record["q"]), changed(rng, record["a"])
        rows[f"r:{i}"] = Completion(prompt, answer if rng.random() < 0.5 else prompt)
    claims, dropped = claims_of(name, rows)
    assert audit_contamination(claims, rows, CONFIGS[name], dropped) == []


def planted() -> tuple[dict[str, Completion], dict[str, Claim]]:
    """One row for each kind of certificate."""
    long = RECORDS[4]["q"].split(" ")
    cut = " ".join(long[: int(len(long) * 0.8)])
    edited = " ".join("x" if i % 9 == 4 else word for i, word in enumerate(long))
    figures = re.sub("[0-9]+", "77", " ".join(long))
    rows = {
        "exact": Completion(RECORDS[8]["q"], ""),
        "stem": Completion(RECORDS[7]["q"].replace("A. ", "A. x ").split("B.")[0], ""),
        "ngram": Completion(cut, ""),
        "fuzzy": Completion(edited, ""),
        "look-alike": Completion(figures, ""),
        "short": Completion("Be kind.\nWho is it, please?", ""),
        "answer": Completion("", RECORDS[25]["a"]),
        "clean": Completion(words(random.Random(9), 80), words(random.Random(10), 80)),
    }
    claims, _ = claims_of("default", rows)
    return rows, {claim.row: claim for claim in claims}


ROWS, CLAIMS = planted()
LEAKS = [row for row, claim in CLAIMS.items() if claim.overlap.kind == "leak"]


def test_planted_rows_have_certificates_of_every_kind():
    kinds = {row: (c.overlap.method, c.overlap.kind, c.overlap.stem) for row, c in CLAIMS.items()}
    assert kinds == {
        "exact": ("exact", "leak", False),
        "stem": ("exact", "leak", True),
        "ngram": ("ngram", "leak", False),
        "fuzzy": ("fuzzy", "leak", False),
        "look-alike": ("ngram", "look-alike", False),
        "short": ("exact", "leak", False),
        "answer": ("exact", "leak", False),
    }
    assert audit_contamination(CLAIMS.values(), ROWS, CONFIGS["default"], LEAKS) == []


OTHER = f"{SET}:6"


@pytest.mark.parametrize(
    ("row", "change", "problem"),
    [
        ("exact", {"where": OTHER}, "found"),
        ("exact", {"where": f"{SET}:99"}, "no evaluation text stands at"),
        ("exact", {"field": "a"}, "no evaluation text stands at"),
        ("exact", {"evaluation_set": "another"}, "no evaluation text stands at"),
        ("exact", {"at": 1}, "does not stand there word for word"),
        ("exact", {"side": "response"}, "does not stand there word for word"),
        ("exact", {"core": (0, 3)}, r"certified words \(0, 3\)"),
        ("exact", {"score": 0.9}, "certified a score of 0.900000, counted 1.000000"),
        ("exact", {"kind": "look-alike"}, "certified a look-alike, found a leak"),
        ("exact", {"threshold": 0.5}, "not over the threshold of the configuration"),
        ("stem", {"stem": False}, "certified words"),
        ("ngram", {"method": "exact"}, "does not stand there word for word"),
        ("ngram", {"score": 1.0}, "certified a score of 1.000000, counted 0."),
        ("ngram", {"threshold": 0.3}, "not over the threshold of the configuration"),
        ("ngram", {"method": "fuzzy"}, "a stretch of another length|certified a score"),
        ("ngram", {"kind": "look-alike"}, "certified a look-alike, found a leak"),
        ("look-alike", {"kind": "leak"}, "certified a leak, found a look-alike"),
        ("fuzzy", {"score": 0.99}, "certified a score of 0.990000, counted 0."),
        ("fuzzy", {"length": 3}, "a stretch of another length was compared"),
        ("fuzzy", {"at": 9}, "certified a score"),
        ("fuzzy", {"method": "ngram"}, "certified a score"),
        ("fuzzy", {"method": "semantic"}, "not over the threshold of the configuration"),
        ("short", {"at": 0}, "does not stand there"),
        ("short", {"method": "ngram"}, "too short for this method"),
        ("answer", {"side": "prompt"}, "is not looked for in the prompt"),
        ("answer", {"answer": False}, "no evaluation text stands at"),
        ("answer", {"method": "fuzzy"}, "does not compare this text as a set of words"),
    ],
)
def test_a_planted_wrong_certificate_fails(row, change, problem):
    claim = Claim(row, CLAIMS[row].overlap.model_copy(update=change))
    problems = audit_contamination([claim], ROWS, CONFIGS["default"], [row])
    assert re.search(problem, "\n".join(problems)), problems


def test_a_certificate_of_a_clean_row_fails():
    for claim in CLAIMS.values():
        wrong = Claim("clean", claim.overlap)
        assert audit_contamination([wrong], ROWS, CONFIGS["default"], ["clean"])


def test_a_short_question_inside_a_sentence_fails_the_audit():
    rows = ROWS | {"short": Completion("Be kind. Who is it, please? Tell me.", "")}
    problems = audit_contamination([CLAIMS["short"]], rows, CONFIGS["default"], ["short"])
    assert "counts only as a whole prompt or a line of it" in problems[0]


def test_rows_and_certificates_must_agree():
    config = CONFIGS["default"]
    claim = CLAIMS["exact"]
    assert audit_contamination([], ROWS, config, ["r:1"]) == ["r:1: is not certified"]
    assert audit_contamination([claim], ROWS, config, []) == [
        "exact: has a certificate but was not dropped"
    ]
    assert audit_contamination([claim], {}, config, ["exact"]) == [
        "exact: the row is not in the sources any more"
    ]
    reporting = configured(action="report")
    assert audit_contamination([claim], ROWS, reporting, []) == []


def test_a_method_that_was_off_certifies_nothing():
    off = configured(exact=False, fuzzy=None)
    for row in ("exact", "fuzzy"):
        assert audit_contamination([CLAIMS[row]], ROWS, off, [row])


# Meanings.


@pytest.fixture(scope="module")
def meant():
    """Rows that mean what a question means, with their certificates."""
    path = FOLDER / "meant.jsonl"
    asked = "buy a fast car today {}"
    records = [{"q": asked.format(""), "a": "me"}, {"q": asked.format(7), "a": "me"}]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    against = [{"path": str(path), "name": "own", "fields": ["q"], "answers": ["a"]}]
    config = ContaminationConfig.model_validate(
        {"against": against, "semantic": {"threshold": 0.8}}
    )
    rows = {
        "leak": Completion("purchase a rapid automobile today", "x"),
        "look-alike": Completion("purchase a rapid automobile today 8", "x"),
    }
    index = build_index(config, embedder=WordEmbedder())
    prompts = [row.prompt for row in rows.values()]
    found = find_overlaps(index, prompts, ["x", "x"], WordEmbedder())
    claims = {
        name: Claim(name, next(hit for hit in hits if hit.kind == name))
        for name, hits in zip(rows, found, strict=True)
    }
    return config, rows, claims


def test_a_cosine_is_computed_again_and_holds(meant):
    config, rows, claims = meant
    assert {claim.overlap.method for claim in claims.values()} == {"semantic"}
    every = claims.values()
    assert audit_contamination(every, rows, config, ["leak"], WordEmbedder()) == []


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("leak", {"score": 0.95}, "certified a cosine of 0.950000, computed 1.000000"),
        ("leak", {"score": 0.5}, "not over the threshold of the configuration"),
        ("leak", {"threshold": 0.5}, "not over the threshold of the configuration"),
        ("leak", {"model": "other"}, "was certified with the model other, not words@1"),
        ("leak", {"side": "response"}, "computed -?0|computed nan"),
        ("leak", {"kind": "look-alike"}, "certified a look-alike, found a leak"),
        ("look-alike", {"kind": "leak"}, "certified a leak, found a look-alike"),
        ("leak", {"field": "a", "answer": True, "core": (0, 1)}, "is not looked for|no evaluation"),
    ],
)
def test_a_planted_wrong_cosine_fails(meant, name, change, problem):
    config, rows, claims = meant
    wrong = Claim(name, claims[name].overlap.model_copy(update=change))
    found = audit_contamination([wrong], rows, config, [name], WordEmbedder())
    assert re.search(problem, "\n".join(found)), found


def test_a_cosine_that_was_invented_for_another_row_fails(meant):
    config, rows, claims = meant
    other = rows | {"leak": Completion("write a poem about the sea", "x")}
    (problem,) = audit_contamination([claims["leak"]], other, config, ["leak"], WordEmbedder())
    assert "certified a cosine of 1.000000, computed 0." in problem


def test_an_audit_of_cosines_without_the_model_says_that_it_cannot_tell(meant):
    config, rows, claims = meant
    (problem,) = audit_contamination([claims["leak"]], rows, config, ["leak"])
    assert "the model words@1 was not loaded to replay it" in problem
