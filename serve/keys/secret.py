"""The text of a key, and the hash that is kept of it.

A key reads ``sk-llmkit-<id>-<secret>``. The id is public: logs, metrics and ``llmkit keys list``
show it. The secret has 256 random bits, so one round of SHA-256 is enough to make the stored
hash useless to whoever reads the database; slow hashes are for what people can remember.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string

PREFIX = "sk-llmkit-"
_LETTERS = string.ascii_lowercase + string.digits
_SECRET = 50
"""Letters of a secret: 36 ** 50 is more than 2 ** 256."""
_ID = 8


def new_id() -> str:
    """An id for a key."""
    return "".join(secrets.choice(_LETTERS) for _ in range(_ID))


def new_secret() -> str:
    """A secret that cannot be guessed."""
    return "".join(secrets.choice(_LETTERS) for _ in range(_SECRET))


def written(key_id: str, secret: str) -> str:
    """The key as its holder sends it."""
    return f"{PREFIX}{key_id}-{secret}"


def parsed(presented: str) -> tuple[str, str]:
    """Id and secret of what a client sent; both empty when it is no key of ours."""
    if not presented.startswith(PREFIX):
        return "", ""
    key_id, _, secret = presented[len(PREFIX) :].partition("-")
    return (key_id, secret) if len(secret) == _SECRET else ("", "")


def digest(secret: str) -> bytes:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def matches(secret: str, stored: bytes) -> bool:
    """Whether a secret is the one whose digest was stored; takes as long for every wrong one."""
    return hmac.compare_digest(digest(secret), stored)
