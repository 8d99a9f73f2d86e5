"""The tables of the keys' database."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

VERSION = 1
"""Of the tables below; a database with another one is refused."""

metadata = MetaData()

schema = Table(
    "llmkit_schema",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
    Column("key_changes", BigInteger, nullable=False),
)
"""One row. ``key_changes`` goes up with every key made or revoked: servers look only at it."""

keys = Table(
    "llmkit_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("name", Text, nullable=False),
    Column("admin", Boolean, nullable=False),
    Column("models", JSON),
    Column("routes", JSON),
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("concurrent_requests", BigInteger),
    Column("tokens_per_month", BigInteger),
    Column("created", DateTime(timezone=True), nullable=False),
    Column("expires", DateTime(timezone=True)),
    Column("revoked", DateTime(timezone=True)),
)
"""A row stays when its key is revoked: a server that once asked for keys never stops."""

windows = Table(
    "llmkit_windows",
    metadata,
    Column("key_id", String(32), primary_key=True),
    Column("state", Text, nullable=False),
    Column("owner", String(32)),
    Column("owned_until", Float, nullable=False),
    Column("wanted", Boolean, nullable=False),
    Column("shared_until", Float, nullable=False),
)
"""What `serve.keys.window` knows of each key, as JSON, and which server counts it in its memory
(`serve.keys.limiter`). The row's lock is the key's. Times are the database's, since 1970."""

usage = Table(
    "llmkit_usage",
    metadata,
    Column("key_id", String(32), primary_key=True),
    Column("model", Text, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
)
"""What was used, by key, by model or adapter, and by day (UTC)."""
