"""The playground: a page of plain HTML, CSS and JavaScript modules, served as they stand here.

    index.html   the page            api.js       requests, streams, errors
    style.css    light and dark      chat.js      turns and their answers
    main.js      puts it together    tokens.js    tokens coloured by their probability
    settings.js  what is asked for   charts.js    live charts from /metrics
    code.js      the request as curl and as Python

Nothing is built, and the page asks nobody but the server that it came from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

PAGE = "/"
FOLDER = "/playground/"

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@dataclass(frozen=True)
class Asset:
    """A file of the page, as it is sent."""

    content: bytes
    media_type: str
    etag: str
    """Changes when the content does; quoted, as the header wants it."""


def assets() -> Mapping[str, Asset]:
    """Every file of the page by its URL path; the page itself is at `PAGE`."""
    found = {}
    for file in resources.files(__name__).iterdir():
        suffix = file.name.rpartition(".")[2]
        if suffix in _TYPES:
            content = file.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            path = PAGE if file.name == "index.html" else FOLDER + file.name
            found[path] = Asset(content, _TYPES[suffix], etag)
    return found
