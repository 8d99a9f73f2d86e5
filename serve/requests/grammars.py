"""Grammars that the engine can follow: of bounded size, and never back where they began.

root ::= root "a" | "b"        left-recursive: comes back to root before reading anything
root ::= "a" root              never ends: every way through it goes on
list ::= "a" ("," list)?       fine
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

MOST_CHARACTERS = 20_000
MOST_RULES = 1_000
_LARGEST_COUNT = 1_000
_DEEPEST = 32

_TOKEN = re.compile(
    r"""
      (?P<space>\s+|\#[^\n]*)
    | (?P<rule>[A-Za-z_][\w.-]*)\s*::=
    | (?P<name>[A-Za-z_][\w.-]*)
    | (?P<text>"(?:[^"\\\n]|\\.)*")
    | (?P<set>\[(?:[^\]\\\n]|\\.)*\])
    | (?P<count>\{\s*[0-9]{0,9}\s*(?:,\s*[0-9]{0,9}\s*)?\})
    | (?P<sign>[|()*+?])
    """,
    re.VERBOSE | re.DOTALL,
)


class GrammarRefused(ValueError):
    """A grammar that is not given to the engine. The message ends a sentence with its name."""


@dataclass
class _Part:
    """What a piece of a rule may do before it has read anything, and whether it can end."""

    empty: bool
    """Whether it can be nothing."""

    ends: bool
    """Whether it can come to an end."""

    first: set[str] = field(default_factory=set)
    """Rules that it may enter before anything is read."""


def check_grammar(grammar: str) -> None:
    """Refuse a grammar that is too large or would recurse without reading or without end.

    Raises:
        GrammarRefused: with the reason.
    """
    if len(grammar) > MOST_CHARACTERS:
        raise GrammarRefused(f"has more than {MOST_CHARACTERS} characters.")
    rules = _rules(grammar)
    if "root" not in rules:
        raise GrammarRefused('has no rule root; begin with: root ::= "..."')
    if len(rules) > MOST_RULES:
        raise GrammarRefused(f"has more than {MOST_RULES} rules.")
    known = _settle(rules)
    for name, part in known.items():
        if not part.ends:
            raise GrammarRefused(f"has a rule {name[:60]!r} that never ends.")
    try:
        TopologicalSorter({name: part.first for name, part in known.items()}).prepare()
    except CycleError as error:
        loop = " -> ".join(str(name)[:60] for name in reversed(error.args[1][:5]))
        raise GrammarRefused(
            f"is left-recursive ({loop}): it comes back to a rule before reading anything. "
            'Put what is read first: list ::= item ("," list)?'
        ) from None


Token = tuple[str, str]


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


def _settle(rules: Mapping[str, Sequence[Token]]) -> dict[str, _Part]:
    """What each rule may do: worked out again whenever a rule that it names has changed."""
    users: dict[str, set[str]] = {name: set() for name in rules}
    for name, body in rules.items():
        for kind, text in body:
            if kind == "name" and text in users:
                users[text].add(name)
    known = {name: _Part(empty=False, ends=False) for name in rules}
    todo = list(rules)
    while todo:
        name = todo.pop()
        now = _Reader(rules[name], known).read()
        if now != known[name]:
            known[name] = now
            todo += users[name]
    return known


class _Reader:
    """Reads one rule's body, with what is known of the others so far."""

    def __init__(self, body: Sequence[Token], known: Mapping[str, _Part]) -> None:
        self._body, self._known, self._at = body, known, 0

    def read(self) -> _Part:
        part = self._alternatives(0)
        if self._at < len(self._body):
            raise GrammarRefused("has a ')' without its '('.")
        return part

    def _peek(self) -> Token:
        return self._body[self._at] if self._at < len(self._body) else ("end", "")

    def _alternatives(self, depth: int) -> _Part:
        if depth > _DEEPEST:
            raise GrammarRefused(f"has groups nested more than {_DEEPEST} deep.")
        whole = self._row(depth)
        while self._peek() == ("sign", "|"):
            self._at += 1
            other = self._row(depth)
            whole = _Part(
                whole.empty or other.empty, whole.ends or other.ends, whole.first | other.first
            )
        return whole

    def _row(self, depth: int) -> _Part:
        whole = _Part(empty=True, ends=True)
        while self._peek() not in (("end", ""), ("sign", "|"), ("sign", ")")):
            part = self._repeated(self._atom(depth))
            first = whole.first | part.first if whole.empty else whole.first
            whole = _Part(whole.empty and part.empty, whole.ends and part.ends, first)
        return whole

    def _atom(self, depth: int) -> _Part:
        kind, text = self._peek()
        self._at += 1
        if kind == "name":
            if text not in self._known:
                raise GrammarRefused(f"names a rule {text[:60]!r} that it does not have.")
            rule = self._known[text]
            return _Part(rule.empty, rule.ends, {text})
        if kind == "text":
            return _Part(empty=text == '""', ends=True)
        if kind == "set":
            return _Part(empty=False, ends=True)
        if text == "(":
            inside = self._alternatives(depth + 1)
            if self._peek() != ("sign", ")"):
                raise GrammarRefused("has a '(' without its ')'.")
            self._at += 1
            return inside
        raise GrammarRefused(f"has {text[:20]!r} where a text, a set, a rule or '(' belongs.")

    def _repeated(self, part: _Part) -> _Part:
        kind, text = self._peek()
        optional = (kind, text) in (("sign", "*"), ("sign", "?"))
        if kind == "count":
            counts = [count.strip() for count in text.strip("{}").split(",")]
            if any(int(count or 0) > _LARGEST_COUNT for count in counts):
                raise GrammarRefused(f"has a count above {_LARGEST_COUNT}.")
            optional = int(counts[0] or 0) == 0
        elif not optional and (kind, text) != ("sign", "+"):
            return part
        self._at += 1
        if part.empty and text in ("*", "+"):
            raise GrammarRefused("repeats without end something that can be empty.")
        return _Part(part.empty or optional, part.ends or optional, part.first)
