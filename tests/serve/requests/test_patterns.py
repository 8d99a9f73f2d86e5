import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.requests.patterns import judge_pattern
from serve.requests.regex_syntax import Reader

_PIECES = ["\\", "\\x{", "\\u", *"xu{}[]()?*+-^|,019adwb", "(?:", "{2}", "{0,9}"]


def problem_of(pattern: str) -> str | None:
    return judge_pattern(pattern).problem


@pytest.mark.parametrize(
    "pattern",
    [
        *("", "a+", r"(\w+,)+", r"([a-z]+, )*[a-z]+", "(ab|ac)*", r"\d{4}-\d{2}-\d{2}"),
        *("(a?b)*", "((a|b)*c)*", r"(.|\n)*", r'"([^"\\]|\\.)*"', "(a{0,50}b)*", "x*?y", "a{3}"),
        *(r"^[\w.-]+@[\w-]+(\.[\w-]+)+$", "(?P<year>[0-9]{4})", "(é|ü)*", r"[\d\-_]", "[^]a]"),
        *(r"\u00e9\x41\n", "(a|)b*", ".*.*.*a", r"#[0-9a-f]{6}", "(0|[1-9][0-9]*)"),
        *(r"\x{e9}[\u{1F600}-\u{10FFFF}]",),
    ],
)
def test_an_ordinary_pattern_is_taken(pattern: str) -> None:
    assert problem_of(pattern) is None


@pytest.mark.parametrize(
    "pattern",
    [
        *("(a+)+", "(a*)*", "(a|a)*", "(a|ab|b)*", r"(\w+\s?)*", "((a+)b?)+", "(a{1,2})*"),
        *(r"(\d+(\.\d+)?,?)*", "(.*a)*", "(a|b|ab)+c", "((a+)+b)+", "([ab]|[bc])*", "(a+){2,}"),
        *("x(a+|b+)*y", "(a?a?)*", r"(\s*\w*)*", "(ab?|ba?)*"),
    ],
)
def test_a_pattern_that_is_ambiguous_without_bound_is_refused(pattern: str) -> None:
    assert "exponentially" in (problem_of(pattern) or "")


@pytest.mark.parametrize(
    "pattern", [".{0,100}.{0,100}", ".*.{0,100}x", "(.{0,40}){4}", r"\w{1,20}[a-z]*\d{1,20}"]
)
def test_a_count_that_may_end_anywhere_beside_another_is_refused(pattern: str) -> None:
    assert "counted repetition" in (problem_of(pattern) or "")


@pytest.mark.parametrize(
    "pattern",
    [
        r"[a-z]{1,64}@[a-z]{1,64}\.[a-z]{2,6}",
        r"(\d{1,3}\.){3}\d{1,3}",
        r"[+-]?\d{1,10}(\.\d{1,10})?([eE][+-]?\d{1,3})?",
        r"[a-z]{3,100}-[0-9]{1,100}",
        r"\w{1,20}( \w{1,20}){0,3}",
        ".{0,128}",
    ],
)
def test_counts_that_can_be_told_apart_are_taken(pattern: str) -> None:
    assert problem_of(pattern) is None


@pytest.mark.parametrize(
    "pattern",
    ["a{129}", "a{129,}", "(a{50}){50}", "(((a{9}){9}){9}){9}", "[a-z]{0,100000}", "a" * 2001],
)
def test_a_pattern_that_is_large_when_written_out_is_refused(pattern: str) -> None:
    assert problem_of(pattern) is not None


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "(",
            ")",
            "(a",
            "a)",
            "[",
            "[a",
            "a**",
            "*a",
            "+",
            r"\1",
            "(?=a)",
            "(?<!a)",
            "a{",
            "a{,3}",
        ),
        *("a{3,1}", r"\p{L}", "\\", "(?P<a", "[z-a]", r"\xZZ", "a++", "(?i)a", "(?>a)", r"\k<a>"),
        *("(" * 40 + ")" * 40, "[]", r"\u{110000}", "a{99999999999}"),
        *(r"\x{41a", r"[\u{41", r"\x{}", r"\x4", r"\u+041", r"\u4_1a", "\\u٣٣٣٣"),
    ],
)
def test_what_is_no_pattern_of_a_regular_language_is_refused(pattern: str) -> None:
    assert problem_of(pattern) is not None


def test_a_pattern_that_is_costly_to_judge_is_refused_and_not_judged() -> None:
    words = "|".join(f"{chr(97 + i % 26)}{i}" for i in range(300))
    assert "too many alternatives" in (problem_of(f"({words})*") or "")
    assert problem_of("a?" * 1000) is not None
    assert "too many alternatives" in (problem_of("(" * 20 + "|" + "){8}" * 20) or "")
    assert "too many alternatives" in (problem_of("a*x" * 600 + "b{0,9}") or "")


def test_a_pattern_of_any_length_does_not_stay_in_memory() -> None:
    long = "a" * 100_000
    held = sys.getrefcount(long)
    assert problem_of(long)
    assert sys.getrefcount(long) == held


def test_what_judging_a_pattern_costs_grows_with_its_states_and_moves() -> None:
    states, more_states = judge_pattern("a{2}"), judge_pattern(r"((\w{8}){8}){8}")
    moves, more_moves = judge_pattern("abcdefgh"), judge_pattern("a?b?c?d?e?f?g?h?")
    assert more_states.steps > states.steps + 510
    assert more_moves.steps > moves.steps + 7 * 8 / 2


@given(st.lists(st.sampled_from(_PIECES), max_size=24).map("".join))
def test_reading_a_pattern_takes_each_character_once_and_always_answers(pattern: str) -> None:
    class Counting(Reader):
        taken = 0

        def _one(self) -> str:
            self.taken += 1
            assert self.taken <= len(pattern) + 1
            return super()._one()

    try:
        Counting(pattern).whole()
    except ValueError:
        assert problem_of(pattern)
    else:
        problem_of(pattern)
