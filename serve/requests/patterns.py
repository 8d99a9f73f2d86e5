r"""Regular expressions that the engine can turn into a grammar without running away.

The grammar engine never backtracks, but it writes counted repetitions out and follows every way
in which a text can be read. So two things are bounded: the size once repetitions are written out,
and ambiguity under an unbounded repetition, of which the ways double with every character.

    (a+)+     a, aa, aaa ...: each place may or may not begin a new round
    (a|a)*    each character may be read by either branch
    (\w+,)+   one way only: the comma ends a round

Sources:
    Glushkov's construction: positions and what may follow them.
    Exponential ambiguity: Allauzen, Mohri, Rastogi (2008), General Algorithms for Testing the
    Ambiguity of Finite Automata, section 3: a state that reaches itself on one text by two ways.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

import networkx

from serve.requests.regex_syntax import Alternatives, Characters, Empty, Node, Repeat, Row, parse

MOST_CHARACTERS = 2_000
MOST_POSITIONS = 2_000
"""Characters and classes once counted repetitions are written out."""
_MOST_STEPS = 20_000
"""Pairs of moves looked at for one expression: some 20 ms."""


_AMBIGUOUS = (
    "can read one text in exponentially many ways, as (a+)+ and (a|a)* do. Let every round of a "
    "repetition begin or end with something that the rest of it has not."
)
_TOO_COMPLEX = "has a repetition of too many alternatives; make it smaller."

_State = TypeVar("_State", int, tuple[int, int])


@lru_cache(maxsize=1024)
def problem_of_pattern(pattern: str) -> str | None:
    """Why a regular expression is refused; None if it is fine.

    The answer ends a sentence that begins with the field's name.
    """
    if len(pattern) > MOST_CHARACTERS:
        return f"has {len(pattern)} characters; at most {MOST_CHARACTERS} are allowed."
    try:
        tree = parse(pattern)
    except ValueError as error:
        return f"is not a regular expression this server takes: {error}."
    if _written_out(tree) > MOST_POSITIONS:
        return (
            f"is too large: its counted repetitions come to more than {MOST_POSITIONS} "
            "characters when written out. Use smaller counts, or * and +."
        )
    automaton = _Automaton()
    automaton.add(tree)
    return automaton.problem()


def _written_out(node: Node) -> int:
    match node:
        case Characters():
            return 1
        case Row(parts) | Alternatives(parts):
            return sum(map(_written_out, parts))
        case Repeat(body, least, most):
            times = max(least, 1) if most is None else most
            return min(_written_out(body) * times, MOST_POSITIONS + 1)
        case Empty():
            return 0


@dataclass
class _Ends:
    """What of a part can come first and last, and whether the part can be empty."""

    first: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    empty: bool = True


class _Automaton:
    """Glushkov's: one state for each character of the expression; moves are counted.

    A counted repetition stands for at most two rounds more than it needs, which is enough to
    tell whether rounds can be told apart.
    """

    def __init__(self) -> None:
        self._sets: list[int] = []
        self._moves: list[Counter[int]] = []

    def add(self, node: Node) -> _Ends:
        match node:
            case Empty():
                return _Ends()
            case Characters(members):
                self._sets.append(members)
                self._moves.append(Counter())
                here = [len(self._sets) - 1]
                return _Ends(here, list(here), empty=False)
            case Alternatives(parts):
                ends = [self.add(part) for part in parts]
                return _Ends(
                    [state for end in ends for state in end.first],
                    [state for end in ends for state in end.last],
                    any(end.empty for end in ends),
                )
            case Row(parts):
                whole = _Ends()
                for part in parts:
                    whole = self._then(whole, self.add(part))
                return whole
            case Repeat(body, least, most):
                return self._repeat(body, least, most)

    def _repeat(self, body: Node, least: int, most: int | None) -> _Ends:
        needed = min(least, 2)
        whole = _Ends()
        for _ in range(needed):
            whole = self._then(whole, self.add(body))
        if most is None:
            more = self.add(body) if not needed else whole
            # `a+` is one `a` with a way back; `a{2,}` goes back to its last round.
            last_round = more if needed < 2 else self.add(body)
            self._link(last_round.last, last_round.first)
            if needed >= 2:
                last_round.empty = True
                return self._then(whole, last_round)
            return _Ends(more.first, more.last, least == 0 or more.empty)
        # Nested, (a(a)?)?: side by side, a?a? could read one `a` in two ways.
        optional = _Ends()
        for _ in range(min(most - least, 2)):
            optional = self._then(self.add(body), optional)
            optional.empty = True
        return self._then(whole, optional)

    def _then(self, before: _Ends, after: _Ends) -> _Ends:
        self._link(before.last, after.first)
        return _Ends(
            before.first + (after.first if before.empty else []),
            after.last + (before.last if after.empty else []),
            before.empty and after.empty,
        )

    def _link(self, sources: list[int], targets: list[int]) -> None:
        for source in sources:
            self._moves[source].update(targets)

    def problem(self) -> str | None:
        """Whether a state reaches itself on one text by two ways, or it is too costly to tell."""
        if not self._sets:
            return None
        budget = _MOST_STEPS
        for cycle in _components({state: list(moves) for state, moves in enumerate(self._moves)}):
            moves = {state: [to for to in self._moves[state] if to in cycle] for state in cycle}
            if any(self._moves[state][to] > 1 for state in cycle for to in moves[state]):
                return _AMBIGUOUS
            pairs = self._pairs(moves, budget)
            if pairs is None:
                return _TOO_COMPLEX
            budget -= len(pairs)
            for component in _components(pairs):
                # One way goes through (q, q), two different ones meet at (p, p').
                if len({one == other for one, other in component}) == 2:
                    return _AMBIGUOUS
        return None

    def _pairs(
        self, moves: Mapping[int, Sequence[int]], budget: int
    ) -> dict[tuple[int, int], list[tuple[int, int]]] | None:
        """Where two readings of one text can be that began in one state; None beyond budget."""
        pairs: dict[tuple[int, int], list[tuple[int, int]]] = {}
        todo = [(state, state) for state in moves]
        while todo:
            pair = todo.pop()
            if pair in pairs:
                continue
            budget -= len(moves[pair[0]]) * len(moves[pair[1]])
            if budget < 0:
                return None
            pairs[pair] = [
                (one, other)
                for one in moves[pair[0]]
                for other in moves[pair[1]]
                if self._sets[one] & self._sets[other]
            ]
            todo.extend(pairs[pair])
        return pairs


def _components(graph: Mapping[_State, Sequence[_State]]) -> Iterator[set[_State]]:
    """Strongly connected components that have a cycle in them."""
    directed = networkx.DiGraph(graph)
    for component in networkx.strongly_connected_components(directed):
        if len(component) > 1 or directed.has_edge(*(2 * tuple(component))):
            yield component
