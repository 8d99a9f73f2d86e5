"""One JSON object a line."""

from collections.abc import Iterable, Iterator

from data_prep.sources.lines import split_lines
from data_prep.sources.records import RawRecord


def scan_jsonl(path: str, blocks: Iterable[bytes]) -> Iterator[RawRecord]:
    """Find the lines that are not blank; parsing them is left for later."""
    for number, line in enumerate(split_lines(blocks), 1):
        if not line.isspace():
            yield RawRecord(f"{path}:{number}", line.rstrip(b"\r\n"), "json")
