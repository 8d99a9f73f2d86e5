"""Grammars that the engine can follow: rules that do not recurse, read as one expression.

    root ::= "yes" | "no"               fine
    list ::= item ("," item)*           fine: repetition, not recursion
    list ::= item | item "," list       refused: list is part of itself

A recursive grammar can be ambiguous in ways that cannot be told from its text, and the engine
then stands still for everyone: a root of ``"a" | "a" root root`` and alternatives with three and
four of them took more than a minute. Nested data are what JSON schemas are for; they may recurse.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from serve.requests.ambiguity import judge_tree
from serve.requests.regex_syntax import (
    Alternatives,
    Characters,
    Empty,
    Node,
    Repeat,
    Row,
    character_set,
    parse,
)

MOST_CHARACTERS = 20_000
_MOST_INLINED = 20_000
"""Characters of all rules, each as often as it is used."""
_DEEPEST = 32
"""Rules and groups within each other."""

_TOKEN = re.compile(
    r"""
      (?P<space>\s+|\#[^\n]*)
    | (?P<rule>[A-Za-z_][\w.-]*)\s*::=
    | (?P<name>[A-Za-z_][\w.-]*)
    | (?P<text>"(?:[^"\\\n]|\\.)*")
    | (?P<set>\[(?:[^\]\\\n]|\\.)*\])
    | (?P<count>\{\s*[0-9]{1,9}\s*(?:,\s*(?:[0-9]{1,9}\s*)?)?\})
    | (?P<sign>[|()*+?])
    """,
    re.VERBOSE | re.DOTALL,
)

_SIGNS: Mapping[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}

Token = tuple[str, str]


class GrammarRefused(ValueError):
    """A grammar that is not given to the engine. The message ends a sentence with its name."""


def check_grammar(grammar: str) -> None:
    """Refuse a grammar that is too large, recurses, or reads one text in too many ways.

    Raises:
        GrammarRefused: with the reason.
    """
    if len(grammar) > MOST_CHARACTERS:
        raise GrammarRefused(f"has more than {MOST_CHARACTERS} characters.")
    rules = _rules(grammar)
    if "root" not in rules:
        raise GrammarRefused('has no rule root; begin with: root ::= "..."')
    reader = _Reader(rules)
    # Rules that root does not use are compiled all the same.
    trees = [reader.rule(name, (), 0) for name in ("root", *rules) if name not in reader.used]
    if problem := judge_tree(Alternatives(tuple(trees))).problem:
        raise GrammarRefused(problem)


def _rules(grammar: str) -> dict[str, list[Token]]:
    rules: dict[str, list[Token]] = {}
    body: list[Token] | None = None
    at = 0
    while at < len(grammar):
        found = _TOKEN.match(grammar, at)
        if found is None:
            raise GrammarRefused(
                f'is not EBNF at character {at}. Write rules as: root ::= "yes" | "no"'
            )
        at = found.end()
        kind = found.lastgroup or ""
        if kind == "rule":
            name = found["rule"]
            if name in rules:
                raise GrammarRefused(f"has two rules {name[:60]!r}.")
            body = rules[name] = []
        elif kind != "space":
            if body is None:
                raise GrammarRefused("does not begin with a rule (root ::= ...).")
            body.append((kind, found[kind]))
    return rules


class _Reader:
    """Makes one expression of the rules, each put in place of its name."""

    def __init__(self, rules: Mapping[str, Sequence[Token]]) -> None:
        self._rules = rules
        self._left = _MOST_INLINED
        self.used: set[str] = set()
        """Rules that were read."""

    def rule(self, name: str, within: tuple[str, ...], depth: int) -> Node:
        """The expression of a rule; ``within`` are the rules that it is being put into."""
        if name in within:
            loop = " -> ".join(rule[:60] for rule in (*within[within.index(name) :][:5], name))
            raise GrammarRefused(
                f"is recursive ({loop}). Use *, + and counts; for nested data, a JSON schema."
            )
        if name not in self._rules:
            raise GrammarRefused(f"names a rule {name[:60]!r} that it does not have.")
        self.used.add(name)
        body = _Body(self._rules[name])
        tree = self._alternatives(body, (*within, name), depth)
        if body.peek() != ("end", ""):
            raise GrammarRefused("has a ')' without its '('.")
        return tree

    def _spend(self, pieces: int) -> None:
        self._left -= pieces
        if self._left < 0:
            raise GrammarRefused("is too large once its rules are put into each other.")

    def _alternatives(self, body: _Body, within: tuple[str, ...], depth: int) -> Node:
        if depth > _DEEPEST:
            raise GrammarRefused(f"has rules and groups nested more than {_DEEPEST} deep.")
        rows = [self._row(body, within, depth)]
        while body.peek() == ("sign", "|"):
            body.take()
            rows.append(self._row(body, within, depth))
        return rows[0] if len(rows) == 1 else Alternatives(tuple(rows))

    def _row(self, body: _Body, within: tuple[str, ...], depth: int) -> Node:
        self._spend(1)
        parts: list[Node] = []
        while body.peek() not in (("end", ""), ("sign", "|"), ("sign", ")")):
            part = self._atom(body, within, depth)
            bounds = body.bounds()
            if bounds is not None:
                if bounds[1] is None and _can_be_empty(part):
                    raise GrammarRefused("repeats without end something that can be empty.")
                part = Repeat(part, *bounds)
                if body.bounds() is not None:
                    raise GrammarRefused("repeats a repetition; put it into a group or a rule.")
            parts.append(part)
        return Row(tuple(parts))

    def _atom(self, body: _Body, within: tuple[str, ...], depth: int) -> Node:
        kind, text = body.take()
        self._spend(len(text))
        if kind == "name":
            return self.rule(text, within, depth + 1)
        if kind == "text":
            letters = re.findall(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)|.", text[1:-1], re.S)
            return Row(tuple(_character(letter) for letter in letters))
        if kind == "set":
            return _in_a_set(text)
        if text == "(":
            inside = self._alternatives(body, within, depth + 1)
            if body.take() != ("sign", ")"):
                raise GrammarRefused("has a '(' without its ')'.")
            return inside
        raise GrammarRefused(f"has {text[:20]!r} where a text, a set, a rule or '(' belongs.")


class _Body:
    """A rule's tokens, one after the other."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens, self._at = tokens, 0

    def peek(self) -> Token:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def take(self) -> Token:
        token = self.peek()
        self._at += 1
        return token

    def bounds(self) -> tuple[int, int | None] | None:
        """How often what came before is repeated, if a repetition is next."""
        kind, text = self.peek()
        if kind == "count":
            least, comma, most = (part.strip() for part in text.strip("{}").partition(","))
            self._at += 1
            upper = int(most) if most else (None if comma else int(least))
            if upper is not None and upper < int(least):
                raise GrammarRefused(f"has the count {text[:40]}, which is upside down.")
            return int(least), upper
        if kind == "sign" and text in _SIGNS:
            self._at += 1
            return _SIGNS[text]
        return None


def _character(letter: str) -> Node:
    return Characters(character_set(letter)) if len(letter) == 1 else _in_a_set(letter)


def _in_a_set(text: str) -> Node:
    """A set or an escape, which are written as in regular expressions."""
    try:
        return parse(text)
    except ValueError as error:
        raise GrammarRefused(
            f"has {text[:20]!r}, which is no set of characters: {error}."
        ) from None


def _can_be_empty(node: Node) -> bool:
    match node:
        case Empty():
            return True
        case Characters():
            return False
        case Row(parts):
            return all(map(_can_be_empty, parts))
        case Alternatives(parts):
            return any(map(_can_be_empty, parts))
        case Repeat(body, least, _):
            return least == 0 or _can_be_empty(body)
