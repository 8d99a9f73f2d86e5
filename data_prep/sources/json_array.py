"""A JSON array of objects, read an element at a time."""

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from data_prep.errors import DataError
from data_prep.sources.blocks import not_utf8
from data_prep.sources.parsing import json_problem
from data_prep.sources.records import RawRecord
from data_prep.strict_json import json_kind, parse_at

LONGEST = 2**28
"""Characters in an element: a longer one is no row, and would fill the memory."""

_MARGIN = 16
"""An error this near to the end of what was read may be one only because more is to come: the
longest thing that JSON's reader judges as one piece is a pair of escaped halves of a character."""

_SPACE = re.compile(r"[ \t\n\r]*")


def scan_json(path: str, blocks: Iterable[bytes]) -> Iterator[RawRecord]:
    """Read an array. Elements that are no objects are answered as problems.

    Memory is bounded by the longest element, whatever the file's size.

    Raises:
        DataError: the file is not UTF-8, not JSON, or not an array; the message names the line.
    """
    text = _Window(path, _decoded(path, blocks))
    try:
        first = text.next_character()
        if not first:
            return
        if first != "[":
            value, _ = text.value()
            if not text.next_character():
                raise DataError(
                    f"{path}: expected a JSON array of objects, found {json_kind(value)}"
                    f"{_hint(value)}."
                )
            raise text.error("Extra data")
        text.at += 1
        more = text.next_character() != "]"
        index = 0
        while more:
            text.next_character()
            value, suspect = text.value()
            problem = json_problem(value, suspect=suspect)
            where = f"{path}[{index}]"
            yield RawRecord(where, problem or value, "problem" if problem else "value")
            index += 1
            more = text.next_character() == ","
            text.at += more
        if text.next_character() != "]":
            raise text.error("Expecting ',' delimiter")
        text.at += 1
        if text.next_character():
            raise text.error("Extra data")
    except json.JSONDecodeError as error:
        line, column = text.place(error.pos)
        raise DataError(
            f"{path}:{line}: not JSON: {error.msg} (column {column}). "
            "A file with one object a line wants the ending .jsonl."
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from None


def _hint(value: object) -> str:
    """Where the rows may be in a document that is no array of them."""
    if not isinstance(value, dict) or not value:
        return ""
    rows = [key for key, held in value.items() if _are_rows(held)]
    if rows:
        return f"; its {rows[0]!r} is one: jq -c '.[\"{rows[0]}\"][]' OLD > NEW.jsonl"
    if all(isinstance(held, list | dict) for held in value.values()):
        return ". As columns? Rows are written by pandas as: to_json(orient='records', lines=True)"
    return ". If that is a row, write it in one line and end the file's name in .jsonl"


def _are_rows(value: object) -> bool:
    """Whether a value is a list of objects that are no turns of one conversation."""
    turn = {"role", "from"}
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and not turn & item.keys() for item in value)
    )


def _decoded(path: str, blocks: Iterable[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    try:
        for block in blocks:
            yield decoder.decode(block)
            line += block.count(b"\n")
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        line += error.object.count(b"\n", 0, error.start)
        raise DataError(f"{path}:{line}: {not_utf8(error)}.") from None


class _Window:
    """The part of a long text that is being looked at, from ``at`` on."""

    def __init__(self, path: str, pieces: Iterator[str]) -> None:
        self.text = ""
        self.at = 0
        self._path = path
        self._pieces = pieces
        self._ended = False
        self._line = self._column = 1

    def next_character(self) -> str:
        """Go on to the next character that is not white space; empty at the end."""
        while True:
            if self.text[self.at : self.at + 1] > " ":  # mostly, and quicker than a pattern
                return self.text[self.at]
            self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.text):
                return self.text[self.at]
            if self._ended:
                return ""
            self._read_on()

    def value(self) -> tuple[Any, bool]:
        """Parse the value that begins here and go on behind it.

        Returns:
            What `parse_at` says of it.

        Raises:
            JSONDecodeError: there is none; its position counts from the window's beginning.
        """
        while True:
            try:
                value, end, suspect = parse_at(self.text, self.at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string")
                if self._ended or not (cut or error.pos > len(self.text) - _MARGIN):
                    raise
            else:
                # The rest of a number's digits may be in the next block.
                if self._ended or end < len(self.text) - _MARGIN:
                    self.at = end
                    return value, suspect
            self._read_on()

    def error(self, problem: str) -> json.JSONDecodeError:
        """The error that stands here."""
        return json.JSONDecodeError(problem, self.text, self.at)

    def place(self, position: int) -> tuple[int, int]:
        """Line and column, from 1, of a position in the window."""
        newlines = self.text.count("\n", 0, position)
        if not newlines:
            return self._line, self._column + position
        return self._line + newlines, position - self.text.rfind("\n", 0, position)

    def _read_on(self) -> None:
        """Let go of what is done with, and at least double the rest: long values stay cheap."""
        self._line, self._column = self.place(self.at)
        kept = [self.text[self.at :]]
        wanted = 2 * len(kept[0]) + 1
        if wanted > 2 * LONGEST:
            raise DataError(
                f"{self._path}:{self._line}: a value of more than {LONGEST} characters, which "
                "is no row. Expected a JSON array of objects."
            )
        self.at = 0
        while sum(map(len, kept)) < wanted and not self._ended:
            piece = next(self._pieces, None)
            self._ended = piece is None
            kept.append(piece or "")
        self.text = "".join(kept)
