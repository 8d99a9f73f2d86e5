"""A file as it is uploaded: ``multipart/form-data``, its content straight to the disk."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.types import Receive, Scope

from serve.gateway.body import ClientLeft
from serve.offline.files import Incoming
from serve.requests.refusal import RequestRefused

_LONGEST_FIELD = 1024
_MOST_PARTS = 20
_AT_ONCE = 2**20
"""Bytes collected before they are written."""


@dataclass
class Form:
    """The fields beside the file's content."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    """What the client calls the file; None until one has come."""


async def receive_form(scope: Scope, receive: Receive, file: Incoming, largest: int) -> Form:
    """Read a form with one file, whose content goes into ``file``.

    Raises:
        RequestRefused: it is not such a form, or the file is larger than ``largest`` bytes.
        ClientLeft: there is no one to answer any more.
    """
    more = True
    try:
        reader = _Reader(_boundary(scope))
        while more:
            message = await receive()
            if message["type"] != "http.request":
                raise ClientLeft
            reader.parse(message.get("body", b""))
            more = message.get("more_body", False)
            if file.bytes + len(reader.content) > largest:
                raise too_large(largest)
            if len(reader.content) >= _AT_ONCE or not more:
                await asyncio.to_thread(file.write, bytes(reader.content))
                reader.content.clear()
        reader.end()
    except FormParserError as error:
        raise _malformed(str(error)) from None
    if reader.form.filename is None:
        raise RequestRefused(
            "'file' is required: a part of the form with a file name.",
            code="missing_required_parameter",
            param="file",
        )
    return reader.form


def too_large(largest: int) -> RequestRefused:
    """The refusal of a file with too many bytes."""
    return RequestRefused(
        f"the file is larger than {largest} bytes (max_batch_bytes). Split it into several.",
        code="file_too_large",
        param="file",
        status=413,
    )


def announced_length(scope: Scope) -> int | None:
    """Bytes that the body will have, if the client says so."""
    length = _header(scope, b"content-length")
    return int(length[:20]) if length.isdigit() else None


class _Reader:
    """Collects what the parser finds in one form."""

    def __init__(self, boundary: bytes) -> None:
        self.form = Form()
        self.content = bytearray()
        """The file's content, as far as it has come and was not taken yet."""
        self._parts = 0
        self._header = self._value = b""
        self._disposition = b""
        self._name = ""
        self._is_file = self._ended = False
        self._text = bytearray()
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def parse(self, piece: bytes) -> None:
        self._parser.write(piece)

    def end(self) -> None:
        self._parser.finalize()
        if not self._ended:
            raise _malformed("it ends in the middle")

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise _malformed(f"it has more than {_MOST_PARTS} parts")
        self._disposition = b""
        self._text.clear()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = self._name == "file"
        if self._is_file:
            if self.form.filename is not None:
                raise _malformed("it has two files")
            self.form.filename = options.get(b"filename", b"").decode("utf-8", "replace")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.content += memoryview(data)[start:end]
            return
        self._text += data[start:end]
        if len(self._text) > _LONGEST_FIELD:
            raise _malformed(f"a field is longer than {_LONGEST_FIELD} bytes")

    def _on_part_end(self) -> None:
        if not self._is_file:
            if self._name[:100] in self.form.fields:
                raise _malformed("it has a field twice")
            self.form.fields[self._name[:100]] = self._text.decode("utf-8", "replace")

    def _on_end(self) -> None:
        self._ended = True


def _boundary(scope: Scope) -> bytes:
    media, options = parse_options_header(_header(scope, b"content-type"))
    if media != b"multipart/form-data" or not options.get(b"boundary"):
        raise RequestRefused(
            "send the file as multipart/form-data, with the fields 'purpose' and 'file'.",
            code="unsupported_media_type",
            status=415,
        )
    return options[b"boundary"]


def _malformed(why: str) -> RequestRefused:
    return RequestRefused(f"the form can't be read: {why}.", code="invalid_form")


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")
