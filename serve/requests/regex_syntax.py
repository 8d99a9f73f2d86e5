"""The syntax of regular expressions that JSON schemas and structured outputs use, as a tree.

Only what describes a regular language, since a grammar is made of it: no back references and
nothing that looks around. Characters are sets of bits, so that asking whether two overlap is
one operation: a bit for each of ASCII, and 64 that the rest shares.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SHARED = 64
_REST = ((1 << _SHARED) - 1) << 128
_ALL = (1 << 128 + _SHARED) - 1
_DEEPEST = 32

_DIGITS = sum(1 << code for code in range(ord("0"), ord("9") + 1))
_WORD = _DIGITS | sum(1 << ord(c) for c in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_SPACE = sum(1 << ord(c) for c in " \t\n\r\f\v")
_CLASSES = {
    "d": _DIGITS,
    "D": _ALL ^ _DIGITS,
    "w": _WORD,
    "W": _ALL ^ _WORD,
    "s": _SPACE | _REST,
    "S": _ALL ^ _SPACE,
}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}
_IN_BRACES = r"\{(10[0-9a-fA-F]{4}|[0-9a-fA-F]{1,5})\}"
_CODES = {
    "x": re.compile(rf"{_IN_BRACES}|([0-9a-fA-F]{{2}})"),
    "u": re.compile(rf"{_IN_BRACES}|([0-9a-fA-F]{{4}})"),
}
"""A character by its number, after ``\\x`` and ``\\u``."""


@dataclass(frozen=True)
class Empty:
    """Nothing, or a place in the text (``^``)."""


@dataclass(frozen=True)
class Characters:
    """One character of a set."""

    members: int


@dataclass(frozen=True)
class Row:
    """Parts one after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Alternatives:
    """One of the parts."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Repeat:
    """A part several times over."""

    body: Node
    least: int
    most: int | None


Node = Empty | Characters | Row | Alternatives | Repeat


def parse(pattern: str) -> Node:
    """Read a regular expression.

    Raises:
        ValueError: it is not one, or has something that grammars cannot be made of.
    """
    return Reader(pattern).whole()


class Reader:
    """Reads one regular expression, from the left."""

    def __init__(self, pattern: str) -> None:
        self._text = pattern
        self._at = 0

    def whole(self) -> Node:
        """The tree of the expression.

        Raises:
            ValueError: as `parse`.
        """
        tree = self._alternatives(0)
        if self._at < len(self._text):
            raise ValueError(f"unmatched ')' at character {self._at}")
        return tree

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, text: str) -> bool:
        found = self._text.startswith(text, self._at)
        self._at += len(text) if found else 0
        return found

    def _one(self) -> str:
        if self._at >= len(self._text):
            raise ValueError("it ends too early")
        self._at += 1
        return self._text[self._at - 1]

    def _alternatives(self, depth: int) -> Node:
        if depth > _DEEPEST:
            raise ValueError(f"groups are nested more than {_DEEPEST} deep")
        rows = [self._row(depth)]
        while self._take("|"):
            rows.append(self._row(depth))
        return rows[0] if len(rows) == 1 else Alternatives(tuple(rows))

    def _row(self, depth: int) -> Node:
        parts: list[Node] = []
        while self._next() not in ("", "|", ")"):
            part = self._repeated(self._atom(depth))
            if not isinstance(part, Empty):
                parts.append(part)
        return Row(tuple(parts)) if parts else Empty()

    def _atom(self, depth: int) -> Node:
        start, character = self._at, self._one()
        if character == "(":
            return self._group(depth)
        if character == "[":
            return Characters(self._set())
        if character == "\\":
            return self._escape()
        if character == ".":
            return Characters(_ALL ^ character_set("\n"))
        if character in "^$":
            return Empty()
        if character in "*+?":
            raise ValueError(f"nothing to repeat at character {start}")
        return Characters(character_set(character))

    def _group(self, depth: int) -> Node:
        if self._take("?"):
            self._group_kind()
        inside = self._alternatives(depth + 1)
        if not self._take(")"):
            raise ValueError("a '(' is never closed")
        return inside

    def _group_kind(self) -> None:
        if self._take(":"):
            return
        named = self._take("P<") or (
            self._next() == "<" and not self._text.startswith(("<=", "<!"), self._at)
        )
        if not named:
            raise ValueError(f"'(?{self._next()}' is not offered, only '(?:'")
        end = self._text.find(">", self._at)
        if end < 0:
            raise ValueError("a group's name is never closed")
        self._at = end + 1

    def _repeated(self, atom: Node) -> Node:
        bounds = self._quantifier()
        if bounds is None:
            return atom
        self._take("?")  # lazy: the same language
        if self._next() in ("*", "+", "?") or self._quantifier() is not None:
            raise ValueError(f"a repetition is repeated at character {self._at}")
        least, most = bounds
        return atom if isinstance(atom, Empty) else Repeat(atom, least, most)

    def _quantifier(self) -> tuple[int, int | None] | None:
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(sign):
                return bounds
        if self._next() != "{":
            return None
        end = self._text.find("}", self._at)
        least, comma, most = self._text[self._at + 1 : end].partition(",")
        counts = (least, most) if most else (least,)
        if end < 0 or not all(c.isascii() and c.isdigit() and len(c) < 10 for c in counts):
            raise ValueError(f"'{{' at character {self._at} begins no count; write \\{{")
        self._at = end + 1
        upper = int(most) if most else (None if comma else int(least))
        if upper is not None and upper < int(least):
            raise ValueError(f"the count {{{least},{most}}} is upside down")
        return int(least), upper

    def _escape(self) -> Node:
        character = self._one()
        if character in _CLASSES:
            return Characters(_CLASSES[character])
        if character in "bBAzZ":
            return Empty()
        if character in "123456789kpPX":
            raise ValueError(f"'\\{character}' is not offered")
        return Characters(character_set(self._escaped(character)))

    def _escaped(self, character: str) -> str:
        """The one character that an escape stands for; its first letter is read already."""
        if character in _CONTROLS:
            return _CONTROLS[character]
        if character in _CODES:
            found = _CODES[character].match(self._text, self._at)
            if found is None:
                raise ValueError(f"'\\{character}' needs hexadecimal digits")
            self._at = found.end()
            return chr(int(found[1] or found[2], 16))
        return "\0" if character == "0" else character

    def _set(self) -> int:
        negated = self._take("^")
        members, first = 0, True
        while first or self._next() != "]":
            first = False
            members |= self._range()
        self._at += 1
        if not members and not negated:
            raise ValueError("an empty '[]' fits nothing")
        return _ALL & ~(members & ~_REST) if negated else members

    def _range(self) -> int:
        low = self._member()
        dash = self._next() == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", "")
        if isinstance(low, int) or not dash:
            return low if isinstance(low, int) else character_set(low)
        self._at += 1
        high = self._member()
        if isinstance(high, int):
            return character_set(low) | character_set("-") | high
        if high < low:
            raise ValueError(f"the range {low}-{high} is upside down")
        ascii_part = sum(1 << code for code in range(ord(low), min(ord(high), 127) + 1))
        return ascii_part | (_REST if ord(high) > 127 else 0)

    def _member(self) -> str | int:
        """A character of a set, or the bits of a class such as digits."""
        character = self._one()
        if character != "\\":
            return character
        escaped = self._one()
        if escaped in _CLASSES:
            return _CLASSES[escaped]
        return "\b" if escaped == "b" else self._escaped(escaped)


def character_set(character: str) -> int:
    """The set of one character."""
    code = ord(character)
    return 1 << (code if code < 128 else 128 + code % _SHARED)
