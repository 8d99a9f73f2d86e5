"""Sources of any format -> one JSONL file of another, streamed."""

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, TextIO

from data_prep.decisions import examples
from data_prep.errors import DataError, RowError
from data_prep.formats.fields import as_json
from data_prep.formats.writing import WRITERS, write_record
from data_prep.ledger import Dropped
from data_prep.reading import ReadRow, RolesPolicy, Unusable, read_rows
from data_prep.remedies import remedies
from data_prep.rows import Completion, Conversation, Labelled, Preference, Row, Text
from data_prep.sources.config import SourceConfig
from data_prep.sources.files import refuse_shared_files

SHOWN = 10
"""Rows of each reason that are kept to show; the others are only counted."""

EVERY = 1000
"""Rows between two words of progress."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """What became of the rows: ``rows_in = rows_written + all that were dropped``."""

    rows_in: int
    rows_written: int
    rows_merged: int
    """Of those written, rows whose repeated roles ``roles: merge`` joined."""
    dropped: dict[str, int]
    """Rows that are not in the file, by reason, most frequent first."""
    examples: list[str]
    """Some of them: their place, the reason and what was found."""
    formats: dict[str, str]
    """For each source the format it was read as, and why, where it was detected."""
    unused: dict[str, int]
    """Fields of the rows written that are not in the file, with the rows that had them."""


def convert_rows(
    sources: Sequence[SourceConfig],
    target: str,
    out: Path,
    *,
    roles: RolesPolicy = "refuse",
    on_error: Literal["fail", "skip"] = "fail",
    progress: Callable[[int], None] = lambda _rows: None,
) -> Conversion:
    """Write the rows of sources as JSONL of another format.

    Rows are read, converted and written one by one, into a file beside ``out`` that takes its
    place when all are done: ``out`` is never half written.

    Args:
        sources: what to read, in order.
        target: one of `WRITERS`.
        out: the ``.jsonl`` file; one that is there already is replaced.
        roles: what happens to repeated roles, as in `DataConfig`.
        on_error: rows that cannot be used or written: all counted and named in one error, or
            left out and counted.
        progress: told of rows as they are read.

    Raises:
        DataError: a source cannot be read or has no rows; two sources name one file; ``out`` is a
            source or cannot be written; rows cannot be used and ``on_error`` is ``fail``; or no
            row is left.
    """
    account = _Account()
    try:
        _refuse_target(target, out)
        refuse_shared_files(sources)
        for source in sources:
            _refuse_overwriting(source, out)
        with _replacing(out) as file:
            for line in _lines(sources, target, roles, account, progress):
                file.write(line)
            _refuse_losses(account, roles, on_error)
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror or error}") from None
    return account.conversion()


@contextmanager
def _replacing(out: Path) -> Iterator[TextIO]:
    """A new file that takes the place of ``out`` when it is whole, and is gone when it is not."""
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        with partial.open("x", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


class _Account:
    """Counts rows as they pass; keeps a few of each reason."""

    def __init__(self) -> None:
        self.rows_in = self.rows_written = self.rows_merged = 0
        self.reasons: Counter[str] = Counter()
        self.shown: list[Dropped] = []
        self.formats: dict[str, str] = {}
        self.unused: Counter[str] = Counter()
        self.fitting: Counter[str] = Counter()
        """Formats that hold the rows which cannot be written."""

    def drop(self, where: str, error: RowError) -> None:
        self.reasons[error.reason] += 1
        if self.reasons[error.reason] <= SHOWN:
            self.shown.append(Dropped(where=where, reason=error.reason, detail=error.detail))

    def examples(self, reasons: Mapping[str, int]) -> list[str]:
        return examples(iter(self.shown), reasons, SHOWN)

    def shown_lines(self, reasons: Mapping[str, int]) -> str:
        shown, total = self.examples(reasons), sum(reasons.values())
        more = [f"... and {total - len(shown)} more"] if total > len(shown) else []
        return "".join(f"\n  {line}" for line in [*shown, *more])

    def conversion(self) -> Conversion:
        return Conversion(
            self.rows_in,
            self.rows_written,
            self.rows_merged,
            dict(self.reasons.most_common()),
            self.examples(self.reasons),
            self.formats,
            dict(sorted(self.unused.items())),
        )


def _lines(
    sources: Sequence[SourceConfig],
    target: str,
    roles: RolesPolicy,
    account: _Account,
    progress: Callable[[int], None],
) -> Iterator[str]:
    """The lines of the file; rows that have none are accounted for."""
    for source in sources:
        before = account.rows_in
        account.formats[source.path] = source.format
        for found in read_rows(source, roles):
            account.rows_in += 1
            if account.rows_in % EVERY == 0:
                progress(EVERY)
            if isinstance(found, Unusable):
                account.drop(found.where, found.error)
                continue
            why = f": {found.because}" if found.because else ""
            account.formats[source.path] = found.format + why
            try:
                line = _line(found, target)
            except RowError as error:
                account.drop(found.where, error)
                account.fitting[_HOLDS[type(found.row)]] += 1
                continue
            account.rows_written += 1
            account.rows_merged += found.merged
            account.unused.update(found.unused)
            yield line
        if account.rows_in == before:
            raise DataError(f"{source.path}: has no rows.")


_HOLDS: dict[type[Row], str] = {
    Conversation: "openai",
    Completion: "completion",
    Text: "text",
    Preference: "preference",
    Labelled: "kto",
}
"""The format that holds all there can be in a row of each kind."""


def _line(found: ReadRow, target: str) -> str:
    return as_json(write_record(found.row, target)) + "\n"


def _refuse_target(target: str, out: Path) -> None:
    if target not in WRITERS:
        close = get_close_matches(target, WRITERS, 1)
        meant = f"Did you mean {close[0]!r}? " if close else ""
        raise DataError(
            f"{target!r} is not a format that can be written. {meant}Allowed: {', '.join(WRITERS)}."
        )
    if out.suffix.lower() != ".jsonl":
        raise DataError(f"{out}: one object a line is written; name the file with .jsonl.")
    if out.is_dir():
        raise DataError(f"{out}: is a folder. Name a file to write.")
    if not out.parent.is_dir():
        raise DataError(f"{out}: there is no folder {out.parent}. Make it first.")


def _refuse_overwriting(source: SourceConfig, out: Path) -> None:
    """Refuse to write over what is read, under whatever name or through whatever link."""
    place = out.resolve()
    names = glob.glob(source.path, recursive=True)  # noqa: PTH207 (may be an absolute pattern)
    for path in map(Path, (source.path, *names)):
        same = path.resolve() == place or (path.exists() and out.exists() and path.samefile(out))
        if same or (path.is_dir() and path.resolve() in place.parents):
            raise DataError(f"{out}: is what {source.path} reads. Name another file to write.")


def _refuse_losses(account: _Account, roles: RolesPolicy, on_error: str) -> None:
    asked_for = "role order" if roles == "drop" else None
    wrong = {reason: n for reason, n in account.reasons.most_common() if reason != asked_for}
    ways = remedies(wrong)
    if account.fitting:
        fitting = " and ".join(f"--convert {name}" for name, _ in account.fitting.most_common())
        ways.append(f"{fitting} holds all of such rows")
    if on_error == "fail" and wrong:
        if account.rows_written:
            ways.append("data.on_error=skip leaves them out and counts them")
        raise DataError(
            f"{sum(wrong.values())} of {account.rows_in} rows cannot be converted "
            f"({_listed(wrong)}):{account.shown_lines(wrong)}\n"
            f"{_advice(ways)}"
        )
    if not account.rows_written:
        reasons = dict(account.reasons.most_common())
        raise DataError(
            f"No row is left to write: {account.rows_in} rows in, dropped: {_listed(reasons)}:"
            f"{account.shown_lines(reasons)}\n{_advice(ways)}"
        )


def _advice(ways: Sequence[str]) -> str:
    return f"Mend them, or: {'; '.join(ways)}." if ways else "Mend them."


def _listed(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none"
