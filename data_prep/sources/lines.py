"""Blocks of bytes -> lines."""

from collections.abc import Iterable, Iterator

from data_prep.sources.blocks import BrokenStreamError

LONGEST = 2**28
"""Bytes in a line. A longer one is no row but a file that is not made of lines."""


def split_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    r"""Cut at ``\n``, ``\r\n`` and ``\r``, and nowhere else; line ends stay.

    Yields:
        Lines; joined they are the blocks joined. Only the last may be without an end.

    Raises:
        BrokenStreamError: a line is longer than ``LONGEST``.
    """
    begun: list[bytes] = []
    length = 0
    held = b""
    for block in blocks:
        whole = held + block
        # Whether \r is a line's end or the first half of one, the next block tells.
        held = b"\r" if whole.endswith(b"\r") else b""
        lines = whole[: len(whole) - len(held)].splitlines(keepends=True)
        if not lines:
            continue
        if begun:
            lines[0] = b"".join([*begun, lines[0]]) if _ended(lines[0]) else lines[0]
            begun = [] if _ended(lines[0]) else begun
        if not _ended(lines[-1]):
            begun.append(lines.pop())
            length = sum(map(len, begun))
            if length > LONGEST:
                raise BrokenStreamError(
                    f"a line of more than {LONGEST} bytes",
                    "An array of objects wants the ending .json, with one object a line .jsonl",
                )
        yield from lines
    last = b"".join([*begun, held])
    if last:
        yield last


def _ended(line: bytes) -> bool:
    return line.endswith((b"\n", b"\r"))
