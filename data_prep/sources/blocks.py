"""A file -> blocks of UTF-8: decompressed, without a byte order mark, other encodings rewritten."""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO

from backports import zstd

from data_prep.sources.kinds import Compression

BLOCK = 2**18
"""Bytes read at once: large enough that Python's part in it does not count."""

_MARKS = {  # UTF-32's little-endian mark begins with UTF-16's
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}

_WIDE: dict[tuple[bool, ...], str] = {
    (True, False, True, False): "utf-16le",
    (False, True, False, True): "utf-16be",
    (True, False, False, False): "utf-32le",
    (False, False, False, True): "utf-32be",
}
"""Which of the first four bytes are not NUL when characters are ASCII and wide."""


_MAGIC: dict[Compression, bytes] = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}
_WINDOW: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 31}
"""Files packed with ``--long`` need more memory than zstd takes by itself: up to 2 GiB."""


class BrokenStreamError(Exception):
    """The bytes of a file make no sense from some place on.

    Args:
        problem: what, and where.
        remedy: what a person can do about the file.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.remedy = remedy


def not_utf8(error: UnicodeDecodeError, place: str = "") -> str:
    """What is wrong with bytes that are no UTF-8, and what to do if all of the file is so."""
    return (
        f"not UTF-8: {error.reason}{place}; a file in Latin-1 or Windows' Western code page is "
        "rewritten by: iconv -f cp1252 -t utf-8 OLD > NEW"
    )


def read_blocks(path: Path, compression: Compression | None) -> Iterator[bytes]:
    """Read a file of text in blocks.

    Yields:
        UTF-8 as it stands in the file (it may be wrong: what cannot be decoded is found by who
        decodes it, who knows the line), or what UTF-16 and UTF-32 with a byte order mark say.

    Raises:
        BrokenStreamError: compressed data is damaged or ends too early; or the encoding, marked
            or seen, is not UTF-8 and cannot be read.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        yield from _utf8(_decompressed(file, compression))


def _decompressed(file: IO[bytes], compression: Compression | None) -> Iterator[bytes]:
    if compression is None:
        while block := file.read(BLOCK):
            yield block
        return
    stream: io.BufferedIOBase = (
        gzip.GzipFile(fileobj=file)
        if compression == "gzip"
        else zstd.ZstdFile(file, options=_WINDOW)
    )
    _refuse_uncompressed(file, compression)
    try:
        # read1 hands over what was good before it meets what is not; read would keep it back.
        while block := stream.read1(BLOCK):
            yield block
    except (EOFError, OSError, zlib.error, zstd.ZstdError) as error:
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
            raise
        reason = "it ends too early" if isinstance(error, EOFError) else str(error)
        raise _damaged(compression, reason) from None
    if not file.tell():
        raise _damaged(compression, "it ends too early")


def _refuse_uncompressed(file: IO[bytes], compression: Compression) -> None:
    head = file.read(4)
    file.seek(0)
    # A frame that zstd skips begins with 0x184D2A50 to 5F, little-endian.
    skipped = compression == "zstd" and head[1:] == b"\x2a\x4d\x18"
    if len(head) == 4 and not head.startswith(_MAGIC[compression]) and not skipped:
        raise BrokenStreamError(
            f"no {compression} data",
            "If it was never compressed, take the last ending off its name",
        )


def _damaged(compression: Compression, reason: str) -> BrokenStreamError:
    save = f"{compression} -dc OLD > NEW"
    return BrokenStreamError(
        f"damaged {compression} data: {reason}",
        f"Fetch or write the file again; what is whole of it is saved by: {save}",
    )


def _utf8(blocks: Iterator[bytes]) -> Iterator[bytes]:
    head = b""
    for block in blocks:
        head += block
        if len(head) >= 4:
            break
    if head.startswith(codecs.BOM_UTF8):
        yield head[3:]
        yield from blocks
        return
    marked = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
    if marked:
        yield from _rewritten(chain([head], blocks), marked)
        return
    if wide := _WIDE.get(tuple(map(bool, head[:4]))):
        raise BrokenStreamError(
            f"bytes are NUL as in {wide} without a byte order mark",
            f"Save it as UTF-8: iconv -f {wide} -t utf-8 OLD > NEW",
        )
    yield head
    yield from blocks


def _rewritten(blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    before = 0
    for block in chain(blocks, [b""]):
        held = len(decoder.getstate()[0])
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            place = before - held + error.start
            raise BrokenStreamError(f"not {encoding}: {error.reason} at byte {place}") from None
        before += len(block)
        yield text.encode()
