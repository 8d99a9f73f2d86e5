import pytest

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


def test_rules_that_double_at_every_step_are_judged_in_little_time() -> None:
    rules = [f"r{i} ::= r{i + 1} r{i + 1}" for i in range(25)]
    with pytest.raises(GrammarRefused, match="too large"):
        check_grammar("\n".join(["root ::= r0", *rules, 'r25 ::= "z"']))
    rules = [f"r{i} ::= r{i + 1}" for i in range(900)]
    with pytest.raises(GrammarRefused, match="deep"):
        check_grammar("\n".join(["root ::= r0", *rules, 'r900 ::= "z"']))
