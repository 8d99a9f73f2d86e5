"""Tables as text: CSV, and TSV, which is CSV with tabs."""

import csv
from collections.abc import Iterable, Iterator, Sequence

from data_prep.errors import DataError
from data_prep.sources.blocks import not_utf8
from data_prep.sources.columns import refuse_repeated
from data_prep.sources.lines import split_lines
from data_prep.sources.records import RawRecord

LONGEST_FIELD = 2**26
"""Characters in a field: more is a quote that is never closed, and would fill the memory."""


def scan_csv(path: str, blocks: Iterable[bytes], delimiter: str) -> Iterator[RawRecord]:
    """Read a table whose first row names the columns.

    Rows with too few or too many fields, or with bytes that are not text, are answered as
    problems. A record's place is the line it begins on.

    Raises:
        DataError: the header is not usable, or quotes are set so that rows cannot be told apart.
    """
    csv.field_size_limit(LONGEST_FIELD)
    lines = _DecodedLines(blocks)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    before = 0
    try:
        for row in reader:
            where, before = f"{path}:{before + 1}", reader.line_num
            problem = lines.take_problem()
            if not row:
                continue
            if header is None:
                if problem:
                    raise DataError(f"{where}: in the names of the columns: {problem}.")
                refuse_repeated(path, row)
                _refuse_other_delimiters(where, row, delimiter)
                header = row
            elif problem := problem or _wrong_number(row, header):
                yield RawRecord(where, problem, "problem")
            else:
                yield RawRecord(where, dict(zip(header, row, strict=True)), "value")
    except csv.Error as error:
        hint = f" in the row of line {before + 1}: is a quote never closed?"
        if "expected after" in str(error):
            hint = '. A quote inside a quoted field is written twice ("")'
        raise DataError(f"{path}:{reader.line_num}: cannot be read as CSV: {error}{hint}") from None


_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}


def _refuse_other_delimiters(where: str, header: Sequence[str], delimiter: str) -> None:
    """Refuse a table that other signs part into columns: it would be read as a single one."""
    others = [sign for sign in _DELIMITERS if sign in header[0] and sign != delimiter]
    if len(header) > 1 or not others:
        return
    wants, has = _DELIMITERS[delimiter], _DELIMITERS[others[0]]
    remedy = f"rewrite it with {wants}"
    if others[0] in ",\t":
        remedy = f"end its name in {'.csv' if others[0] == ',' else '.tsv'}"
    raise DataError(
        f"{where}: a single column, named {header[0][:80]!r}. This kind of file parts its columns "
        f"by {wants}; if {has} are meant, {remedy}."
    )


class _DecodedLines:
    """Lines as text; of those that are not, what is wrong is kept until it is taken."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._lines = split_lines(blocks)
        self._number = 0
        self._problem = ""

    def __iter__(self) -> "_DecodedLines":
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._number += 1
        if b"\0" in line:
            self._note(f"not text: a NUL character at byte {line.index(0)} of line {self._number}")
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            self._note(not_utf8(error, f" at byte {error.start} of line {self._number}"))
            return line.decode(errors="replace")

    def _note(self, problem: str) -> None:
        self._problem = self._problem or problem

    def take_problem(self) -> str:
        """What was wrong with lines since the last call; empty when nothing was."""
        problem, self._problem = self._problem, ""
        return problem


def _wrong_number(row: Sequence[str], header: Sequence[str]) -> str:
    if len(row) == len(header):
        return ""
    return f"{'more' if len(row) > len(header) else 'fewer'} fields than the header names"
