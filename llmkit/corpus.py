"""The texts of some sources, as tokenizers are trained and measured on them.

The one place of the tokenizer commands that knows how sources are read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from data_prep.errors import DataError
from data_prep.reading import Unusable, read_row, with_format
from data_prep.row_text import text_of
from data_prep.sources.blocks import BrokenStreamError, read_blocks
from data_prep.sources.config import SourceConfig
from data_prep.sources.files import find_files
from data_prep.sources.kinds import kind_of
from data_prep.sources.lines import split_lines
from data_prep.sources.parsing import parse_record
from data_prep.sources.records import BadRecord, Record
from data_prep.sources.scan import read
from llmkit.errors import UsageError

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
    read_as: dict[str, str] = field(default_factory=dict)
    """What was taken for the text of each path, in the last reading."""

    def texts(self) -> Iterator[str]:
        """Every text, in the sources' order.

        Raises:
            DataError: a source cannot be read, or holds no text at all.
            UsageError: the name of a source is empty.
        """
        return (text for _, text in self.labelled())

    def labelled(self) -> Iterator[tuple[str, str]]:
        """Every text with its label.

        Raises:
            DataError: a source cannot be read, or holds no text at all.
            UsageError: the name of a source is empty.
        """
        self.left_out.clear()
        self.read_as.clear()
        for path in self.paths:
            if not path:
                raise UsageError("a source has no name. Name a file, a folder or a hub id.")
            before, found = len(self.left_out), 0
            for labelled in self._source(path):
                found += 1
                yield labelled
            if not found:
                why = [
                    f"The first record: {first}. {self._advice(first)}"
                    for first in self.left_out[before : before + 1]
                ]
                raise DataError(
                    f"{path}: no text was found in it. {' '.join(why or ['It is empty.'])}"
                )

    def _advice(self, why: str) -> str:
        """What to do where no record has a text, from why the first has none."""
        if self.label and why.endswith(_no_text_in(self.label)) and self.label not in self.fields:
            return "Name another field to tell texts apart by: --by NAME, or leave it out"
        return "Name the fields that hold text: --field NAME"

    def _source(self, path: str) -> Iterator[tuple[str, str]]:
        files = find_files(path)
        if files is None:
            yield from self._records(path, SourceConfig(path=path))
        for file in files or ():
            kind = kind_of(file)
            if kind and kind.format == "text":
                # Not the records of a source: a tokenizer learns from line ends and empty lines.
                if self.label:
                    raise UsageError(
                        f"{file}: text has no fields, so it has no {self.label!r} either."
                    )
                self.read_as.setdefault(path, "all of its text")
                yield from (("", paragraph) for paragraph in _paragraphs(file))
            else:
                yield from self._records(path, SourceConfig(path=str(file)))

    def _records(self, path: str, source: SourceConfig) -> Iterator[tuple[str, str]]:
        records = iter(read(source))
        head: list[Record | BadRecord] = []
        for record in records:
            head.append(record)
            if isinstance(record, Record):
                break
        first = head[-1].value if head and isinstance(head[-1], Record) else {}
        if self.fields or isinstance(first.get("text"), str):
            names = self.fields or ("text",)
            self.read_as.setdefault(path, f"the field {' and '.join(names)}")
            yield from self._from_fields(names, chain(head, records))
        else:
            yield from self._from_rows(path, source)

    def _from_fields(
        self, names: Sequence[str], records: Iterator[Record | BadRecord]
    ) -> Iterator[tuple[str, str]]:
        wanted = [*names, *([self.label] if self.label else [])]
        for record in records:
            if isinstance(record, BadRecord):
                self.left_out.append(f"{record.where}: {record.problem}")
                continue
            missing = _without_text(record.value, wanted)
            if missing:
                self.left_out.append(f"{record.where}: {_no_text_in(missing)}")
                continue
            label = record.value[self.label] if self.label else ""
            yield label, "\n".join(record.value[name] for name in names)

    def _from_rows(self, path: str, source: SourceConfig) -> Iterator[tuple[str, str]]:
        for raw, chosen in with_format(source):
            record = parse_record(raw)
            found = read_row(record, source.format, chosen, roles="merge")
            label = (
                record.value.get(self.label) if self.label and isinstance(record, Record) else ""
            )
            if isinstance(found, Unusable):
                self.left_out.append(f"{found.where}: {found.error}")
            elif not isinstance(label, str):
                self.left_out.append(f"{found.where}: {_no_text_in(self.label or '')}")
            else:
                what = f"what is asked and answered ({found.format})"
                self.read_as.setdefault(path, what)
                yield label, text_of(found.row, "both").removeprefix("\n")  # nothing was asked


def _no_text_in(field: str) -> str:
    return f"no text in field {field!r}"


def _without_text(record: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if not isinstance(record.get(name), str)), None)


def _paragraphs(path: Path) -> Iterator[str]:
    """The paragraphs of a text file, each with the empty lines behind it: together, the file.

    Raises:
        DataError: the file cannot be read, or is not UTF-8.
    """
    kind = kind_of(path)
    held: list[str] = []
    size = number = 0
    try:
        for line in split_lines(read_blocks(path, kind.compression if kind else None)):
            number += 1
            text = line.decode()
            ends = bool(held) and not held[-1].strip() and bool(text.strip())
            if ends or size > PARAGRAPH:
                yield "".join(held)
                held, size = [], 0
            held.append(text)
            size += len(text)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:{number}: not UTF-8: {error.reason}") from None
    except (BrokenStreamError, OSError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    if held:
        yield "".join(held)
