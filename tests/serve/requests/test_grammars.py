from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.requests.grammars import GrammarRefused, check_grammar


@pytest.mark.parametrize(
    "grammar",
    [
        'root ::= "yes" | "no"',
        'root ::= item ("," item)*\nitem ::= [a-z]+',
        'root ::= term (" " [+*/-] " " term)*\nterm ::= "-"? [0-9]+ ("." [0-9]+)?',
        'root ::= "SELECT " name ("," name)* " FROM " name "\\n"\nname ::= [a-z_] [a-z0-9_]*',
        'root ::= [^\\]"]{1,20} # a comment ::= with marks\n',
        'root ::= "" | "a" unused*\nunused ::= "\\u00e9" "\\"" "\\x41"',
    ],
)
def test_an_ordinary_grammar_is_taken(grammar: str) -> None:
    check_grammar(grammar)


@pytest.mark.parametrize(
    ("grammar", "why"),
    [
        ("root ::= root", "recursive"),
        ('root ::= "a" root', "recursive"),
        ('root ::= root "a" | "b"', "recursive"),
        ('root ::= a | "x"\na ::= b\nb ::= a | "y"', "a -> b -> a"),
        ('root ::= "x"\nunused ::= "(" unused ")" | "y"', "recursive"),
        ('root ::= ("a"+)+', "exponentially"),
        ('root ::= a+\na ::= b+\nb ::= "a"+', "exponentially"),
        ('root ::= ([a-z]{1,100}){1,100} "."', "too large|exponentially"),
        ("root ::= [a-z]{1,100} [a-z]{1,100}", "counted repetition"),
        ('root ::= ("a"?)*', "can be empty"),
        ('root ::= "a"{1,99999}', "count"),
        ('root ::= "a"{3,1}', "upside down"),
        ('root ::= "a"?*', "repeats a repetition"),
        ('root ::= "a"' + "?" * 1200, "repeats a repetition"),
        ('root ::= "a"\nunused ::= "a"{0,99999}', "count"),
        ('root ::= "a"\nunused ::= ("a"+)+', "exponentially"),
        ('root ::= "a" x\nx ::= "b"\nunused ::= [a-z]{1,100} [a-z]{1,100}', "counted repetition"),
        ("root ::= other", "does not have"),
        ('rood ::= "a"', "root"),
        ('root ::= "a"\nroot ::= "b"', "two rules"),
        ('root ::= ("a"', "'\\)'"),
        ('root ::= "a")', "'\\('"),
        ('root ::= "a', "EBNF"),
        ('start: "a"', "begin with a rule"),
        ("root ::= " + "(" * 40 + '"a"' + ")" * 40, "deep"),
        ("", "root"),
        ('root ::= "' + "a" * 30_000 + '"', "characters"),
    ],
)
def test_a_grammar_that_cannot_be_followed_is_refused(grammar: str, why: str) -> None:
    with pytest.raises(GrammarRefused, match=why):
        check_grammar(grammar)


def test_rules_are_judged_by_how_deep_they_are_put_into_each_other() -> None:
    def wrapped(inside: str) -> str:
        return "(" * 30 + inside + ")" * 30

    names = [f"r{number}" for number in range(11)]
    bodies = [wrapped(name) for name in names[1:]] + ['"a"']
    rules = [f"{name} ::= {body}" for name, body in zip(names, bodies)]
    for order in (rules, rules[::-1]):
        with pytest.raises(GrammarRefused, match="deep"):
            check_grammar("\n".join(["root ::= r0", *order]))
        with pytest.raises(GrammarRefused, match="deep"):
            check_grammar("\n".join([f"root ::= {' '.join(names[::-1])}", *order]))


@given(
    st.lists(
        st.one_of(
            st.sampled_from(['"a"', "[ab]", "(", ")", "|", "*", "+", "?", "{2}", "{0,9}", "{3,1}"]),
            st.sampled_from(["root", "x", "y", "x ::=", "\ny ::=", "# c\n", "[\\u{41]", '"', "\\"]),
        ),
        max_size=24,
    ).map(" ".join)
)
def test_a_grammar_is_taken_or_refused_and_nothing_else(rest: str) -> None:
    with suppress(GrammarRefused):
        check_grammar("root ::= " + rest)


def test_rules_that_double_at_every_step_are_judged_in_little_time() -> None:
    rules = [f"r{i} ::= r{i + 1} r{i + 1}" for i in range(25)]
    with pytest.raises(GrammarRefused, match="too large"):
        check_grammar("\n".join(["root ::= r0", *rules, 'r25 ::= "z"']))
    rules = [f"r{i} ::= r{i + 1}" for i in range(900)]
    with pytest.raises(GrammarRefused, match="deep"):
        check_grammar("\n".join(["root ::= r0", *rules, 'r900 ::= "z"']))
