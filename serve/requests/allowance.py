"""What the schemas and patterns of one request may come to together."""

from __future__ import annotations

from typing import Any

from serve.requests.patterns import judge_pattern

_DEEPEST = 64
_MOST_STEPS = 50_000
"""For judging patterns: some 200 different ones of the ordinary kind; some 100 ms."""


class SchemaRefused(ValueError):
    """A schema that is not given to the engine. The message ends a sentence with its name."""


class Allowance:
    """What is left of one request's allowance; it shrinks with each schema and pattern."""

    def __init__(self, characters: int) -> None:
        self._characters = self._left = characters
        self._steps = _MOST_STEPS
        self._fine: set[str] = set()

    def take(self, schema: Any) -> None:
        """Count a schema's names and texts.

        Raises:
            SchemaRefused: they are too many, with those counted before, or nested too deep.
        """
        self._left -= _measure(schema, self._left)
        if self._left < 0:
            raise SchemaRefused(
                "is too large: with the schemas before it, its names and texts have more than "
                f"{self._characters} characters."
            )

    def problem_of(self, pattern: str) -> str | None:
        """Why a pattern is refused; None if it is fine.

        The answer ends a sentence that begins with the field's name.
        """
        if pattern in self._fine:
            return None
        if self._steps < 0:
            return "comes after too many or too large ones; use fewer of them in one request."
        verdict = judge_pattern(pattern)
        self._steps -= verdict.steps
        if verdict.problem is None:
            self._fine.add(pattern)
        return verdict.problem


def _measure(value: Any, enough: int) -> int:
    """Characters in all names, texts and numbers of a JSON value; stops once above ``enough``.

    Raises:
        SchemaRefused: it is nested too deep.
    """
    total, level = 0, [value]
    for _ in range(_DEEPEST + 1):
        inner: list[Any] = []
        for node in level:
            total += 2
            if total > enough:
                return total
            if isinstance(node, str):
                total += len(node)
            elif isinstance(node, dict):
                total += sum(map(len, node))
                inner += node.values()
            elif isinstance(node, list):
                inner += node
            elif isinstance(node, int):
                total += node.bit_length() // 3
        if not inner:
            return total
        level = inner
    raise SchemaRefused(f"is nested more than {_DEEPEST} deep.")
