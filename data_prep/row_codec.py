"""Rows as text and back, for shards: the kind of the row, and its fields as JSON."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
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


def are_texts(rows: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Which encoded rows are plain text: told without decoding them; null is none."""
    found = pc.fill_null(pc.starts_with(rows, f"{Text.__name__} "), fill_value=False)
    return np.asarray(found.to_numpy(), np.bool_)
