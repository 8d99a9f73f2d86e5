"""Dolly: an instruction, its context and its response, each in a field."""

from collections.abc import Mapping
from typing import Any

from data_prep.formats.alpaca import asked
from data_prep.formats.exchanges import Exchanges
from data_prep.formats.fields import optional_text, system, text
from data_prep.rows import Conversation, Message, Row


def dolly(record: Mapping[str, Any]) -> Conversation:
    """``instruction``, ``context`` (may be empty), ``response``; optional ``system``."""
    question = asked(text(record, "instruction"), optional_text(record, "context"))
    answer = Message("assistant", text(record, "response"))
    return Conversation((*system(record), question, answer))


def write_dolly(row: Row) -> dict[str, Any]:
    """``instruction``, an empty ``context``, ``response``; ``system`` where there is one."""
    said = Exchanges.of(row, "dolly")
    question, answer = said.only("dolly")
    written = {"instruction": question, "context": "", "response": answer}
    return written | {"system": said.system} if said.system else written
