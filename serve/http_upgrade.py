"""Requests that offer to go on in another protocol, which this server leaves at HTTP/1.1.

RFC 9110 (7.8) lets a server ignore the offer and answer as if it had not been made. Java's
HttpClient, and with it Spring and LangChain4j, offers ``h2c`` with every request over plain HTTP;
httptools takes that for the end of HTTP, so that such requests lose their bodies
(https://github.com/Kludex/uvicorn/issues/2722).
"""

from __future__ import annotations

from collections.abc import Iterable

_OFFERS = frozenset({b"upgrade", b"http2-settings"})
"""Headers of the offer, and what ``connection`` calls them."""


def head_without_upgrade(
    method: bytes, url: bytes, version: str, headers: Iterable[tuple[bytes, bytes]]
) -> bytes:
    """The head of the same request without the offer, to be parsed in place of the one that came.

    Args:
        method: such as ``POST``.
        url: as it stood in the request line.
        version: of HTTP, such as ``1.1``.
        headers: as parsed, names in lower case. A parsed value holds no line break.
    """
    lines = [b"%s %s HTTP/%s" % (method, url, version.encode())]
    for name, value in headers:
        if name == b"connection":
            kept = [token.strip() for token in value.split(b",")]
            value = b", ".join(token for token in kept if token.lower() not in _OFFERS)
        if name not in _OFFERS:
            lines.append(b"%s: %s" % (name, value))
    return b"\r\n".join(lines) + b"\r\n\r\n"
