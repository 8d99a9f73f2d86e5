"""Alpaca: an instruction, its input and its output, each in a field."""

from collections.abc import Mapping
from typing import Any

from data_prep.errors import RowError
from data_prep.formats.exchanges import Exchanges
from data_prep.formats.fields import optional_text, system, text
from data_prep.rows import Conversation, Message, Row


def alpaca(record: Mapping[str, Any]) -> Conversation:
    """``instruction``, ``input`` (may be empty), ``output``; optional ``system``, ``history``."""
    return Conversation((*alpaca_prompt(record), Message("assistant", text(record, "output"))))


def alpaca_prompt(record: Mapping[str, Any]) -> tuple[Message, ...]:
    """All but the output."""
    turns = system(record)
    history = record.get("history") or []
    if not isinstance(history, list):
        raise RowError("wrong field", "'history' wants a list of [question, answer] pairs")
    for pair in history:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise RowError("wrong field", "'history' wants a list of [question, answer] pairs")
        question, answer = ({"history": said} for said in pair)
        turns.append(Message("user", text(question, "history")))
        turns.append(Message("assistant", text(answer, "history")))
    return (*turns, asked(text(record, "instruction"), optional_text(record, "input")))


def asked(instruction: str, context: str) -> Message:
    """An instruction and what it is about, each on lines of its own, as one user turn."""
    return Message("user", "\n".join(said for said in (instruction, context) if said.strip()))


def write_alpaca(row: Row) -> dict[str, Any]:
    """``instruction``, an empty ``input``, ``output``; ``system`` and ``history`` where needed."""
    said = Exchanges.of(row, "alpaca")
    (*earlier, (question, answer)) = said.pairs
    written: dict[str, Any] = {"instruction": question, "input": "", "output": answer}
    if said.system:
        written["system"] = said.system
    if earlier:
        written["history"] = [list(pair) for pair in earlier]
    return written
