"""Dolly: an instruction, its context and its response, each in a field."""

from collections.abc import Mapping
from typing import Any

from data_prep.formats.alpaca import asked
from data_prep.formats.exchanges import Exchanges
from data_prep.formats.fields import optional_text, text
from data_prep.rows import Conversation, Message, Row


def dolly(record: Mapping[str, Any]) -> Conversation:
    """``instruction``, ``context`` (may be empty), ``response``."""
    question = asked(text(record, "instruction"), optional_text(record, "context"))
    return Conversation((question, Message("assistant", text(record, "response"))))


def write_dolly(row: Row) -> dict[str, Any]:
    """``instruction``, an empty ``context``, ``response``."""
    question, answer = Exchanges.of(row, "dolly").only("dolly", system=False)
    return {"instruction": question, "context": "", "response": answer}
