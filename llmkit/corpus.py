"""The texts of some sources, as tokenizers are trained and measured on them.

The one place of the tokenizer commands that knows how sources are read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from data_prep.errors import DataError
from data_prep.reading import Unusable, read_rows
from data_prep.row_text import text_of
from data_prep.sources.config import SourceConfig
from data_prep.sources.records import BadRecord, Record
from data_prep.sources.scan import read

PARAGRAPH = 1 << 16
"""Characters after which a text file's paragraph is cut, at the end of a line."""


@dataclass
class Corpus:
    """Sources that can be read again and again."""

    paths: Sequence[str]
    fields: Sequence[str] = ()
    """The text is in these fields of a record; else in ``text``; else in the rows of a format."""
    label: str | None = None
    """The field that texts are told apart by, such as a language."""
    left_out: list[str] = field(default_factory=list)
    """Where and why, of records without text, in the last reading."""

    def texts(self) -> Iterator[str]:
        """Every text, in the sources' order.

        Raises:
            DataError: a source cannot be read, or holds no text at all.
        """
        return (text for _, text in self.labelled())

    def labelled(self) -> Iterator[tuple[str, str]]:
        """Every text with its label.

        Raises:
            DataError: a source cannot be read, or holds no text at all.
        """
        self.left_out.clear()
        for path in self.paths:
            before, found = len(self.left_out), 0
            for labelled in self._source(path):
                found += 1
                yield labelled
            if not found:
                first = [f" The first: {why}." for why in self.left_out[before : before + 1]]
                raise DataError(
                    f"{path}: no text was found in it.{''.join(first)} "
                    "Name the fields that hold it: --field NAME"
                )

    def _source(self, path: str) -> Iterator[tuple[str, str]]:
        if Path(path).suffix.lower() == ".txt" and Path(path).is_file():
            # Not the paragraphs of the sources: a tokenizer learns from the empty lines too.
            for paragraph in _paragraphs(Path(path)):
                yield "", paragraph
            return
        source = SourceConfig(path=path)
        records = iter(read(source))
        head: list[Record | BadRecord] = []
        for record in records:
            head.append(record)
            if isinstance(record, Record):
                break
        first = head[-1].value if head and isinstance(head[-1], Record) else {}
        if self.fields or self.label or isinstance(first.get("text"), str):
            yield from self._from_fields(chain(head, records))
        else:
            yield from self._from_rows(source)

    def _from_fields(self, records: Iterator[Record | BadRecord]) -> Iterator[tuple[str, str]]:
        names = self.fields or ("text",)
        wanted = [*names, *([self.label] if self.label else [])]
        for record in records:
            if isinstance(record, BadRecord):
                self.left_out.append(f"{record.where}: {record.problem}")
                continue
            missing = _without_text(record.value, wanted)
            if missing:
                self.left_out.append(f"{record.where}: no text in field {missing!r}")
                continue
            label = record.value[self.label] if self.label else ""
            yield label, "\n".join(record.value[name] for name in names)

    def _from_rows(self, source: SourceConfig) -> Iterator[tuple[str, str]]:
        for found in read_rows(source, roles="merge"):
            if isinstance(found, Unusable):
                self.left_out.append(f"{found.where}: {found.error}")
            else:
                yield "", text_of(found.row, "both")


def _without_text(record: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if not isinstance(record.get(name), str)), None)


def _paragraphs(path: Path) -> Iterator[str]:
    """The paragraphs of a text file, each with the empty lines behind it: together, the file."""
    held: list[str] = []
    size = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            for line in lines:
                ends = bool(held) and not held[-1].strip() and bool(line.strip())
                if ends or size > PARAGRAPH:
                    yield "".join(held)
                    held, size = [], 0
                held.append(line)
                size += len(line)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None
    if held:
        yield "".join(held)
