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

_WIDE = {(1, 0, 1, 0), (0, 1, 0, 1), (1, 0, 0, 0), (0, 0, 0, 1)}
"""Where the first two characters have bytes that are not NUL when they are ASCII and wide."""


class BrokenStreamError(Exception):
    """The bytes of a file make no sense from some place on. The text says what and where."""


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
        gzip.GzipFile(fileobj=file) if compression == "gzip" else zstd.ZstdFile(file)
    )
    try:
        # read1 hands over what was good before it meets what is not; read would keep it back.
        while block := stream.read1(BLOCK):
            yield block
    except (EOFError, OSError, zlib.error, zstd.ZstdError) as error:
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
            raise
        reason = "it ends too early" if isinstance(error, EOFError) else str(error)
        raise BrokenStreamError(f"damaged {compression} data: {reason}") from None
    if not file.tell():
        raise BrokenStreamError(f"damaged {compression} data: it ends too early")


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
    if tuple(map(bool, head[:4])) in _WIDE:
        raise BrokenStreamError(
            "every other byte is NUL, as in UTF-16 without a byte order mark. Save it as UTF-8"
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
