"""In how many ways an expression can read one text: bounded, or growing with the text.

The expression becomes Glushkov's automaton: a state for each character that is written, and moves
to what may follow it. Counted repetitions with many rounds are taken for unbounded ones here.

    exponential    a state comes back to itself on one text by two ways
    by counts      p comes back to p, goes on to q, and q comes back to q, all on one text, and a
                   count is among them (without counts the engine has no trouble with this one)
    in a row       many moves from one state on the same character

Sources:
    Allauzen, Mohri, Rastogi (2008), General Algorithms for Testing the Ambiguity of Finite
    Automata, sections 3 and 4: the first two as conditions on pairs and triples of states.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import networkx

from serve.requests.regex_syntax import Alternatives, Characters, Empty, Node, Repeat, Row

MOST_POSITIONS = 2_000
"""Characters and sets once counted repetitions are written out."""
LARGEST_COUNT = 128
"""xgrammar fails on patterns in JSON schemas with a larger one."""
_MANY_ROUNDS = 8
_MOST_STEPS = 20_000
"""States, moves, and pairs and triples of moves looked at for one expression: some 30 ms."""
_MOST_ALIKE = 2_000
"""Pairs of moves from one state on the same character."""

_EXPONENTIAL = (
    "can read one text in exponentially many ways, as (a+)+ and (a|a)* do. Let every round of a "
    "repetition begin or end with something that the rest of it has not."
)
_BY_COUNTS = (
    "has a counted repetition next to another repetition of the same characters, as .{0,9}.{0,9} "
    "has. Put something between them that they have not, or use one of them, or * and +."
)
_IN_A_ROW = "has too many optional parts in a row that can be the same character."
_TOO_LARGE = (
    f"is too large: its counted repetitions come to more than {MOST_POSITIONS} characters when "
    "written out. Use smaller counts, or * and +."
)
_COUNT = f"has a count above {LARGEST_COUNT}; use * or +."
_TOO_COMPLEX = "has too many alternatives or optional parts; make it smaller."

_State = TypeVar("_State", int, tuple[int, int])
_Moves = Mapping[int, Sequence[int]]


@dataclass(frozen=True)
class Verdict:
    """What judging an expression came to."""

    problem: str | None
    """Why it is not given to the engine; None if it is fine."""

    steps: int = 0
    """What judging it cost, in steps of one or two microseconds."""


def judge_tree(tree: Node) -> Verdict:
    """Judge an expression by its size and by the ways to read one text with it."""
    if _largest_count(tree) > LARGEST_COUNT:
        return Verdict(_COUNT)
    if written_out(tree) > MOST_POSITIONS:
        return Verdict(_TOO_LARGE)
    automaton = _Automaton()
    try:
        automaton.add(tree)
        return Verdict(automaton.problem(), automaton.steps)
    except _TooComplex:
        return Verdict(_TOO_COMPLEX, automaton.steps)


def written_out(node: Node) -> int:
    """Characters and sets once counted repetitions are written out, or more than too many."""
    match node:
        case Characters():
            return 1
        case Row(parts) | Alternatives(parts):
            return min(sum(map(written_out, parts)), MOST_POSITIONS + 1)
        case Repeat(body, least, most):
            times = max(least, 1) if most is None else most
            return min(written_out(body) * times, MOST_POSITIONS + 1)
        case Empty():
            return 0


def _largest_count(node: Node) -> int:
    match node:
        case Row(parts) | Alternatives(parts):
            return max(map(_largest_count, parts), default=0)
        case Repeat(body, least, most):
            return max(least, most or 0, _largest_count(body))
        case _:
            return 0


class _TooComplex(Exception):
    """More steps than are spent on one expression."""


@dataclass
class _Ends:
    """What of a part can come first and last, and whether the part can be empty."""

    first: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    empty: bool = True


class _Automaton:
    def __init__(self) -> None:
        self._sets: list[int] = []
        self._moves: list[Counter[int]] = []
        self._counted: set[int] = set()
        self.steps = 0

    def add(self, node: Node) -> _Ends:
        self._spend(1)
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
        if most == 0:
            return _Ends()
        if most is None or most > _MANY_ROUNDS:
            begin = len(self._sets)
            once = self.add(body)
            self._link(once.last, once.first)
            if most is not None and most - least >= _MANY_ROUNDS // 2:
                self._counted.update(range(begin, len(self._sets)))
            return _Ends(once.first, once.last, least == 0 or once.empty)
        whole = _Ends()
        for _ in range(least):
            whole = self._then(whole, self.add(body))
        # Nested, (a(a)?)?: side by side, a?a? could read one `a` in two ways.
        optional = _Ends()
        for _ in range(most - least):
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
        self._spend(len(sources) * len(targets) // 4)
        for source in sources:
            self._moves[source].update(targets)

    def _spend(self, steps: int) -> None:
        self.steps += steps
        if self.steps > _MOST_STEPS:
            raise _TooComplex

    def problem(self) -> str | None:
        self._spend(2 * (len(self._sets) + sum(map(len, self._moves))))
        cycles = list(_components({state: list(to) for state, to in enumerate(self._moves)}))
        if any(self._doubles(cycle) for cycle in cycles):
            return _EXPONENTIAL
        if any(self._ends_anywhere(one, other) for one, other in self._one_after_other(cycles)):
            return _BY_COUNTS
        return _IN_A_ROW if self._alike() > _MOST_ALIKE else None

    def _doubles(self, cycle: set[int]) -> bool:
        """Whether a state of a cycle comes back to itself on one text by two ways."""
        moves = self._within(cycle)
        if any(self._moves[state][to] > 1 for state in cycle for to in moves[state]):
            return True
        pairs: dict[tuple[int, int], list[tuple[int, int]]] = {}
        todo = [(state, state) for state in moves]
        while todo:
            pair = todo.pop()
            if pair in pairs:
                continue
            self._spend(len(moves[pair[0]]) * len(moves[pair[1]]))
            pairs[pair] = [
                (one, other)
                for one in moves[pair[0]]
                for other in moves[pair[1]]
                if self._sets[one] & self._sets[other]
            ]
            todo.extend(pairs[pair])
        # One way goes through (q, q), two different ones meet at (p, p').
        return any(len({one == other for one, other in c}) == 2 for c in _components(pairs))

    def _one_after_other(self, cycles: list[set[int]]) -> Iterator[tuple[set[int], set[int]]]:
        """Pairs of cycles of which one can follow the other, with a count among them."""
        if not self._counted:
            return
        graph = networkx.DiGraph({state: list(to) for state, to in enumerate(self._moves)})
        for one in cycles:
            reached = networkx.descendants(graph, next(iter(one)))
            self._spend(len(reached) + len(cycles))
            for other in cycles:
                if other is not one and (one | other) & self._counted and reached & other:
                    yield one, other

    def _ends_anywhere(self, one: set[int], other: set[int]) -> bool:
        """Whether a text leads from p to p, from p to q and from q to q."""
        before, after = self._within(one), self._within(other)
        for p in one:
            for q in other:
                seen = {(p, p, q)}
                todo = deque(seen)
                while todo:
                    a, b, c = todo.popleft()
                    for triple in self._together(before[a], list(self._moves[b]), after[c]):
                        if triple == (p, q, q):
                            return True
                        if triple not in seen:
                            seen.add(triple)
                            todo.append(triple)
        return False

    def _together(
        self, a: Sequence[int], b: Sequence[int], c: Sequence[int]
    ) -> Iterator[tuple[int, int, int]]:
        """Targets of three moves on one character."""
        self._spend(len(a) * len(b) * len(c))
        for one in a:
            for two in b:
                for three in c:
                    if self._sets[one] & self._sets[two] & self._sets[three]:
                        yield one, two, three

    def _alike(self) -> int:
        """Pairs of moves from one state on the same character, over all states."""
        alike = 0
        for moves in self._moves:
            self._spend(len(moves) ** 2 // 8)
            targets = list(moves)
            for place, one in enumerate(targets):
                alike += sum(1 for other in targets[:place] if self._sets[one] & self._sets[other])
        return alike

    def _within(self, cycle: set[int]) -> _Moves:
        return {state: [to for to in self._moves[state] if to in cycle] for state in cycle}


def _components(graph: Mapping[_State, Sequence[_State]]) -> Iterator[set[_State]]:
    """Strongly connected components that have a cycle in them."""
    directed = networkx.DiGraph(graph)
    for component in networkx.strongly_connected_components(directed):
        if len(component) > 1 or directed.has_edge(*(2 * tuple(component))):
            yield component
