"""Filters by length, share and expression; how filters judge in turn."""

import math

import pytest
from chat_rows import conversation
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from data_prep.errors import DataError
from data_prep.filters.candidate import Candidate
from data_prep.filters.characters import CharactersFilter
from data_prep.filters.code import CodeFilter
from data_prep.filters.markup import code_characters, prose_of
from data_prep.filters.pattern import PatternFilter
from data_prep.filters.perplexity import PerplexityFilter
from data_prep.filters.personal import MASKS
from data_prep.filters.settings import FilterConfigs, judge_all, perplexity_filter
from data_prep.filters.symbols import SymbolsFilter
from data_prep.filters.tokens import TokensFilter
from data_prep.filters.words import WordsFilter, words
from data_prep.rows import Completion, Conversation, Message


def row(answer: str, question: str = "Why?", **figures: float) -> Candidate:
    return Candidate(conversation(question, answer), **{"tokens": 10, **figures})


def filters(*entries: dict[str, object]):
    return TypeAdapter(FilterConfigs).validate_python(entries)


# Lengths.


@pytest.mark.parametrize(
    ("tokens", "verdict"),
    [(4, (False, "4 tokens, min=5")), (5, True), (7, True), (8, (False, "8 tokens, max=7"))],
)
def test_both_limits_belong_to_what_stays(tokens, verdict):
    assert TokensFilter(kind="tokens", min=5, max=7).judge(row("", tokens=tokens)) == verdict


def test_one_limit_is_enough():
    assert TokensFilter(kind="tokens", max=7).judge(row("", tokens=0)) is True
    assert TokensFilter(kind="tokens", min=7).judge(row("", tokens=10**9)) is True


@pytest.mark.parametrize("kind", ["tokens", "characters", "words", "code", "symbols", "perplexity"])
def test_limits_that_say_nothing_or_allow_nothing_are_refused(kind):
    with pytest.raises(ValidationError, match="neither min nor max"):
        filters({"kind": kind})
    with pytest.raises(ValidationError, match=r"min .* is above max"):
        filters(
            {"kind": kind, "min": 1, "max": 0}
            if kind != "perplexity"
            else {"kind": kind, "min": 2, "max": 1}
        )


@pytest.mark.parametrize(("on", "count"), [("prompt", 4), ("response", 5), ("both", 10)])
def test_characters_of_the_part_that_is_asked_for_are_counted(on, count):
    found = CharactersFilter(kind="characters", min=100, on=on).judge(row("Maybe", " Why?\n"))
    assert found == (False, f"{count + (on == 'both')} characters in {on}, min=100")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't stop, e-mail ME!", ["Don't", "stop", "e", "mail", "ME"]),
        ("3.5 + x_1", ["3", "5", "x_1"]),
        ("日本語 text", ["日", "本", "語", "text"]),
        ("naïve Straße", ["naïve", "Straße"]),
        ("cafe\u0301s", ["cafe\u0301s"]),
        ("हिन्दी भाषा। தமிழ்", ["हिन्दी", "भाषा", "தமிழ்"]),
        ("مُحَمَّد a\u200cb \u2764\ufe0f", ["مُحَمَّد", "a\u200cb"]),
        (" ... ", []),
    ],
)
def test_words_of_a_text(text, expected):
    assert words(text) == expected


def test_words_are_counted():
    assert WordsFilter(kind="words", max=2, on="response").judge(row("one two three")) == (
        False,
        "3 words in response, max=2",
    )


# Shares.

CODE = "def add(a, b):\n    return a + b\n"


@pytest.mark.parametrize(
    "text",
    [
        f"```python\n{CODE}```",
        "```\nan unclosed block\nof anything",
        CODE,
        "for (int i = 0; i < n; i++) {\n    total += a[i];\n}",
        "<div class='a'><br/></div>",
        "SELECT a FROM b WHERE c = 1;",
        "`git status`",
        "import numpy as np\nx_mean = np.mean(values)\nprint(x_mean)",
    ],
)
def test_code_and_markup_are_recognised(text):
    code, total = code_characters(text)
    assert code == total > 0


@pytest.mark.parametrize(
    "text",
    [
        "For example, if you want to go, take the bus; it is cheap.",
        "Here is what you need:\n- eggs;\n- milk;\nWith these ingredients:",
        "x = 15 - 7\n6x = 12\nD = 40 miles",
        "If you are in France: eat bread.",
        "Import duties rose. Class sizes fell (a lot).",
        "a < b and c > d",
        " ".join(MASKS.values()),
    ],
)
def test_prose_and_sums_are_no_code(text):
    assert code_characters(text)[0] == 0


def test_a_row_is_judged_by_its_share_of_code():
    half = row("wordswords\n`12345678`")
    assert CodeFilter(kind="code", max=0.5, on="response").judge(half) is True
    dropped = CodeFilter(kind="code", max=0.4, on="response").judge(half)
    assert dropped == (False, "50.0% of response is code or markup, max=0.4")
    assert CodeFilter(kind="code", min=0.6, on="response").judge(half) is not True
    assert CodeFilter(kind="code", min=0.6, on="response").judge(row("")) is True


def test_prose_is_what_code_links_and_markup_leave():
    text = f"See https://example.org/x?y=1 and `ls`.\n{CODE}<b>Bold</b> words."
    assert prose_of(text).split() == ["See", "and", ".", "Bold", "words."]


def test_letters_of_no_script_are_symbols():
    judge = SymbolsFilter(kind="symbols", max=0.0, on="response").judge
    assert judge(row("हिन्दी ภาษาไทย é 日本 5")) is True
    assert judge(row("ab!?")) == (False, "50.0% of response is symbols, max=0.0")


# Expressions.


def test_rows_in_which_an_expression_is_found_go_or_alone_stay():
    pattern = "(?i)lorem +ipsum"
    drop = PatternFilter(kind="pattern", pattern=pattern)
    keep = PatternFilter(kind="pattern", pattern=pattern, drop="others", on="response")
    assert drop.judge(row("Lorem  IPSUM")) == (False, f"{pattern!r} found in both")
    assert drop.judge(row("dolor")) is True
    assert keep.judge(row("Lorem  IPSUM")) is True
    assert keep.judge(row("dolor")) == (False, f"{pattern!r} not found in response")


def test_an_expression_that_stalls_others_takes_no_time():
    assert PatternFilter(kind="pattern", pattern="(a+)+$").judge(row("a" * 100_000 + "b")) is True


@pytest.mark.parametrize("pattern", ["(a", r"(a)\1", "(?=a)"])
def test_an_expression_that_cannot_run_is_refused(pattern):
    with pytest.raises(ValidationError, match="no expression that RE2 can run"):
        PatternFilter(kind="pattern", pattern=pattern)


# Perplexity.


@pytest.mark.parametrize(
    ("perplexity", "verdict"),
    [
        (9.0, (False, "perplexity 9, min=10.0")),
        (10.0, True),
        (123456.7, (False, "perplexity 1.2346e+05, max=1000.0")),
        (math.inf, (False, "perplexity inf, max=1000.0")),
        (math.nan, True),
    ],
)
def test_rows_are_judged_by_the_perplexity_they_were_scored_with(perplexity, verdict):
    judge = PerplexityFilter(kind="perplexity", min=10, max=1000).judge
    assert judge(row("", perplexity=perplexity)) == verdict


def test_a_row_that_was_never_scored_is_an_error():
    with pytest.raises(DataError, match="no model has scored"):
        PerplexityFilter(kind="perplexity", max=1000).judge(row(""))


def test_the_perplexity_filter_is_found_and_may_stand_once():
    one = {"kind": "perplexity", "max": 9}
    found = filters({"kind": "tokens", "max": 3}, one)
    assert perplexity_filter(found) == found[1]
    assert perplexity_filter(found[:1]) is None
    with pytest.raises(ValidationError, match="more than once"):
        filters(one, one)


# All of them.


def test_the_first_filter_that_drops_a_row_names_the_reason():
    chosen = filters(
        {"kind": "words", "min": 1}, {"kind": "tokens", "max": 3}, {"kind": "characters", "max": 1}
    )
    assert judge_all(chosen, [row("no")]) == [("tokens", "10 tokens, max=3")]
    assert judge_all(chosen[:1], [row("no")]) == [None]
    assert judge_all((), [row("no")]) == [None]


@given(st.lists(st.sampled_from(["one", "two words", "three more words", ""])))
def test_many_rows_are_judged_as_each_alone(answers):
    chosen = filters(
        {"kind": "pattern", "pattern": "one", "on": "response"},
        {"kind": "words", "min": 2, "on": "response"},
        {"kind": "pattern", "pattern": "two|one", "drop": "others", "on": "response"},
    )
    rows = [row(answer) for answer in answers]
    assert judge_all(chosen, rows) == [judge_all(chosen, [each])[0] for each in rows]


EVERY = [
    {"kind": "blacklist"},
    {"kind": "characters", "min": 1},
    {"kind": "code", "max": 0.5},
    {"kind": "language", "keep": ["en"]},
    {"kind": "pattern", "pattern": "x"},
    {"kind": "perplexity", "max": 100},
    {"kind": "personal"},
    {"kind": "refusals"},
    {"kind": "repetition"},
    {"kind": "symbols", "max": 0.5},
    {"kind": "tokens", "max": 9},
    {"kind": "words", "min": 1},
]
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@given(texts, texts)
def test_every_filter_answers_any_text_the_same_twice(question, answer):
    for entry in filters(*EVERY):
        verdicts = [
            entry.judge(Candidate(Completion(question, answer), 5, perplexity=3.0))
            for _ in range(2)
        ]
        assert verdicts[0] == verdicts[1]
        assert verdicts[0] is True or (verdicts[0][0] is False and verdicts[0][1])


@pytest.mark.parametrize("entry", EVERY, ids=lambda entry: entry["kind"])
def test_settings_survive_being_written_and_an_unknown_key_is_refused(entry):
    (made,) = filters(entry)
    assert filters(made.model_dump(mode="json")) == (made,)
    with pytest.raises(ValidationError, match="zzz"):
        filters({**entry, "zzz": 1})


def test_the_instruction_is_the_first_thing_a_person_asks():
    talk = Conversation(
        (
            Message("system", "S"),
            Message("user", "A"),
            Message("assistant", "B"),
            Message("user", "C"),
            Message("assistant", "D"),
        )
    )
    assert Candidate(talk, 1).instruction == "A"
    assert Candidate(talk, 1).turns("response") == ("B", "D")
    assert Candidate(talk, 1).turns("prompt") == ("S", "A", "C")
    assert Candidate(talk, 1).turns("both") == ("S", "A", "B", "C", "D")
    assert Candidate(Completion("P", "Q"), 1).instruction == "P"
    assert Candidate(Completion("P", "Q"), 1).turns("response") == ("Q",)
