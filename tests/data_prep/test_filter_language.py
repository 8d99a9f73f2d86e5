"""Language: what is told, what cannot be, and codes that do not exist."""

import json
from pathlib import Path

import pytest
from chat_rows import conversation
from pydantic import ValidationError

from data_prep.filters.candidate import Candidate
from data_prep.filters.language import LanguageFilter, known_languages, language_of
from data_prep.rows import Completion

ENGLISH = "The quick brown fox jumps over the lazy dog while the children are watching it."
GERMAN = "Der schnelle braune Fuchs springt über den faulen Hund, während die Kinder zusehen."
CHINESE = "敏捷的棕色狐狸跳过了那只懒狗\uff0c孩子们都在旁边看着。"
OASST = Path(__file__).parents[2] / ".." / "shared" / "data" / "oasst_samples"


def judge(text: str, *keep: str, **settings: object):
    made = LanguageFilter(kind="language", keep=keep, **settings)
    return made.judge(Candidate(Completion("", text), 9))


@pytest.mark.parametrize(("code", "text"), [("en", ENGLISH), ("de", GERMAN), ("zh", CHINESE)])
def test_a_text_stays_in_its_own_language_and_goes_from_others(code, text):
    for kept in ("en", "de", "zh"):
        assert (judge(text, kept) is True) == (kept == code)
    assert judge(text, "en", "de", "zh") is True


def test_a_language_that_has_members_takes_them_in():
    nynorsk = "Eg veit ikkje kva eg skal gjere i dag, men det er fint vêr ute og vi går ein tur."
    assert judge(nynorsk, "nn") is True
    assert judge(nynorsk, "no") is True
    assert judge(nynorsk, "da") is not True


def test_the_detail_says_what_was_found():
    verdict, detail = judge(GERMAN, "en", "fr")
    assert verdict is False
    assert detail == "0% en or fr, 100% de, min_confidence=0.0"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Ja.",
        "Guten Tag, wie geht es?",
        "你好\uff0c你是谁\uff1f",
        "12345 67890 " * 20,
        "?!" * 90,
    ],
)
def test_what_is_too_short_to_tell_stays(text):
    assert judge(text, "en") is True


def test_the_length_from_which_languages_are_told_can_be_set():
    assert judge("Guten Tag, wie geht es Ihnen heute?", "en", min_characters=10) is not True
    assert judge(GERMAN, "en", min_characters=1000) is True


@pytest.mark.parametrize(
    "text",
    [
        "1. Apple\n2. Banana\n3. Orange\n4. Pineapple\n5. Mango\n6. Kiwi\n7. Strawberry",
        "Barack Obama, Angela Merkel, Emmanuel Macron, Justin Trudeau, Vladimir Putin",
        "State quarters: 35(2/5)=14 quarters\nPennsylvania: 14(.50)=7 quarters\n#### 7",
    ],
)
def test_lists_that_the_model_can_only_guess_at_stay_unless_certainty_is_asked_for(text):
    assert judge(text, "en") is True
    assert judge(text, "en", min_confidence=0.5) is not True
    assert language_of(text) is None


@pytest.mark.parametrize(("text", "code"), [(GERMAN, "de"), (CHINESE, "zh"), ("Paris.", None)])
def test_a_language_is_named_where_it_can_be_told(text, code):
    assert language_of(text) == code


def test_code_markup_and_links_say_nothing_about_the_language():
    code = "```python\nfor child in watching_children:\n    the_lazy_dog.jumps_over(child)\n```\n"
    link = "https://example.org/the-quick-brown-fox-jumps-over-the-lazy-dog-and-the-children"
    assert judge(code * 5, "de") is True
    assert judge(f"{GERMAN}\n{code * 5}{link}", "de") is True
    assert judge(link, "de") is True


def test_the_part_that_is_asked_for_is_looked_at():
    row = Candidate(conversation(ENGLISH, GERMAN), 9)
    for on, code in (("prompt", "en"), ("response", "de")):
        assert LanguageFilter(kind="language", keep=(code,), on=on).judge(row) is True
        other = {"en": "de", "de": "en"}[code]
        assert LanguageFilter(kind="language", keep=(other,), on=on).judge(row) is not True


def test_confidence_can_be_asked_for():
    mixed = f"{ENGLISH} {GERMAN}"
    stays = [judge(mixed, "en") is True, judge(mixed, "de") is True]
    assert sorted(stays) == [False, True]
    surer = "en" if stays[0] else "de"
    assert judge(mixed, surer, min_confidence=1.0) is not True
    assert judge(mixed, "en", "de", min_confidence=0.9) is True


@pytest.mark.parametrize(
    ("code", "meant"),
    [
        ("EN", "en"),
        ("en-US", "en"),
        ("english", "en"),
        ("englsh", "en"),
        ("ger", "de"),
        ("jp", "ja"),
    ],
)
def test_an_unknown_code_is_refused_with_the_one_that_was_meant(code, meant):
    with pytest.raises(ValidationError, match=f"'{code}' is not known .did you mean '{meant}'"):
        LanguageFilter(kind="language", keep=("de", code))


def test_no_code_and_a_code_like_no_other_are_refused():
    with pytest.raises(ValidationError, match="names no language"):
        LanguageFilter(kind="language", keep=())
    with pytest.raises(ValidationError, match="allowed: ace, af, am"):
        LanguageFilter(kind="language", keep=("qqqqqq",))
    assert {"en", "de", "zh", "ar"} < set(known_languages())


@pytest.mark.skipif(not OASST.is_dir(), reason="no shared data")
def test_of_real_answers_nearly_all_are_told_right():
    lines = (OASST / "oasst_half_a.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [(row["lang"].partition("-")[0], row["output"]) for row in map(json.loads, lines)]
    wrong = [text for code, text in rows if judge(text, code) is not True]
    assert len(wrong) <= 0.02 * len(rows)
    foreign = [text for code, text in rows if code not in ("en",) and len(text) > 200]
    assert sum(judge(text, "en") is True for text in foreign) <= 0.02 * len(foreign)
