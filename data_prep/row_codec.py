"""Rows as text and back, for shards: the kind of the row, and its fields as JSON."""

from pydantic import TypeAdapter

from data_prep.rows import Completion, Conversation, Labelled, Preference, Row, Text

_KINDS: dict[str, TypeAdapter[Row]] = {
    kind.__name__: TypeAdapter(kind)
    for kind in (Conversation, Completion, Text, Preference, Labelled)
}


def encode_row(row: Row) -> str:
    """A row as one line of text."""
    kind = type(row).__name__
    return f"{kind} {_KINDS[kind].dump_json(row).decode()}"


def decode_row(text: str) -> Row:
    """The row that `encode_row` wrote."""
    kind, _, fields = text.partition(" ")
    return _KINDS[kind].validate_json(fields)
