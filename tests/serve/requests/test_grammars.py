import pytest

from serve.requests.grammars import GrammarRefused, check_grammar


@pytest.mark.parametrize(
    "grammar",
    [
        'root ::= "yes" | "no"',
        'root ::= item ("," root)?\nitem ::= [a-z]+',
        'root ::= expr\nexpr ::= term ("+" term)*\nterm ::= [0-9]+ | "(" expr ")"',
        'root ::= [^\\]"]{1,20} # a comment ::= with marks\n',
        'root ::= "" | "a" root',
    ],
)
def test_an_ordinary_grammar_is_taken(grammar: str) -> None:
    check_grammar(grammar)


@pytest.mark.parametrize(
    ("grammar", "why"),
    [
        ("root ::= root", "never ends"),
        ('root ::= "a" root', "never ends"),
        ('root ::= root "a" | "b"', "left-recursive"),
        ('root ::= blank root "x" | "b"\nblank ::= " "?', "left-recursive"),
        ('root ::= a | "x"\na ::= b\nb ::= a | "y"', "left-recursive"),
        ('root ::= ("a"? root)? "b"', "left-recursive"),
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


def test_a_long_chain_of_rules_is_judged_in_little_time() -> None:
    rules = [f"r{i} ::= r{i + 1}" for i in range(990)]
    check_grammar("\n".join(["root ::= r0", *rules, 'r990 ::= "z"']))
