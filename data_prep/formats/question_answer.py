"""A question and its answer, under one of several pairs of names, each in a field."""

from collections.abc import Mapping
from typing import Any

from data_prep.errors import RowError
from data_prep.formats.alpaca import asked
from data_prep.formats.exchanges import Exchanges
from data_prep.formats.fields import holds, kind, optional_text, system, text
from data_prep.formats.human_assistant import begins_with_a_turn
from data_prep.rows import Conversation, Message, Row

PAIRS = (
    ("question", "answer"),
    ("question", "response"),
    ("query", "response"),
    ("problem", "solution"),
    ("prompt", "response"),
    ("input", "output"),
    ("inputs", "targets"),
)
"""What data sets call the two; the first pair that a record has is taken."""


def pair_of(record: Mapping[str, Any]) -> tuple[str, str] | None:
    """The fields that hold a record's question and answer."""
    return next((pair for pair in PAIRS if holds(record, *pair)), None)


def qa(record: Mapping[str, Any]) -> Conversation:
    """``question`` and ``answer``, or another of `PAIRS`; optional ``system`` and ``context``."""
    question, answer = pair_of(record) or PAIRS[0]
    said = text(record, question)
    if begins_with_a_turn(said):
        raise RowError("wrong field", f"{question!r} holds '### Human:' turns, not a question")
    turn = asked(said, optional_text(record, "context"))
    return Conversation((*system(record), turn, Message("assistant", text(record, answer))))


def write_qa(row: Row) -> dict[str, Any]:
    """``question`` and ``answer``, and ``system`` where there is one."""
    said = Exchanges.of(row, "qa")
    question, answer = said.only("qa")
    written = {"question": question, "answer": answer}
    return written | {"system": said.system} if said.system else written


def self_instruct(record: Mapping[str, Any]) -> Conversation:
    """``instruction`` and ``instances``, a list with one object of ``input`` and ``output``."""
    instances = record.get("instances")
    if not isinstance(instances, list) or not all(isinstance(one, Mapping) for one in instances):
        raise RowError("wrong field", f"'instances' wants a list, found {kind(instances)}")
    if len(instances) != 1:
        raise RowError(
            "not one row", f"{len(instances)} instances; write one record with one instance each"
        )
    (instance,) = instances
    turn = asked(text(record, "instruction"), optional_text(instance, "input"))
    return Conversation((turn, Message("assistant", text(instance, "output"))))
