"""Text without any structure but lines."""

from collections.abc import Iterable, Iterator

from data_prep.sources.blocks import BrokenStreamError
from data_prep.sources.config import TextUnit
from data_prep.sources.lines import LONGEST, split_lines
from data_prep.sources.records import RawRecord


def scan_text(path: str, blocks: Iterable[bytes], unit: TextUnit) -> Iterator[RawRecord]:
    r"""Cut a text into records.

    Lines and paragraphs lose the line end after them; inside a paragraph or a file every line
    end becomes ``\n``. A record's place is its first line.

    Raises:
        BrokenStreamError: a record is longer than a row can be.
    """
    begun: list[bytes] = []
    size = first = 0
    for number, line in enumerate(split_lines(blocks), 1):
        content = line.rstrip(b"\r\n")
        blank = not content or content.isspace()
        if unit == "line":
            if not blank:
                yield RawRecord(f"{path}:{number}", content, "text")
        elif blank and (unit == "paragraph" or not begun):
            if begun:
                yield RawRecord(f"{path}:{first}", b"\n".join(begun), "text")
            begun, size = [], 0
        else:
            first = first if begun else number
            begun.append(content)
            size += len(content)
            if size > LONGEST:
                raise BrokenStreamError(
                    f"a {unit} of more than {LONGEST} bytes", "Choose a smaller text_unit"
                )
    while begun and not begun[-1].strip():
        begun.pop()
    if begun:
        yield RawRecord(f"{path}:{first}", b"\n".join(begun), "text")
