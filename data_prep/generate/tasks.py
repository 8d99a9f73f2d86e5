"""Tasks that generation begins with: instructions, with examples where a source has them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.errors import DataError, RowError
from data_prep.formats.alpaca import asked
from data_prep.formats.detection import detect
from data_prep.formats.registry import convert
from data_prep.rows import Conversation
from data_prep.sources.config import SourceConfig
from data_prep.sources.records import Record
from data_prep.sources.scan import read


@dataclass(frozen=True, slots=True)
class Instance:
    """One case of a task."""

    input: str
    """What the instruction is about; empty where it stands alone."""
    output: str


@dataclass(frozen=True, slots=True)
class Task:
    """An instruction, and cases of it."""

    id: str
    instruction: str
    instances: tuple[Instance, ...] = ()
    is_classification: bool | None = None
    """Whether its outputs are a few labels; None where nobody said."""

    @property
    def question(self) -> str:
        """The instruction with its first input, as a user would write it."""
        return asked(self.instruction, self.instances[0].input if self.instances else "").content


def read_tasks(sources: Sequence[SourceConfig]) -> list[Task]:
    """Read tasks of sources, in their order.

    A record's instruction stands in ``instruction`` (with ``input`` or ``instances``), ``prompt``,
    ``question`` or ``text``, with or without an answer; or it is the first that a user says in a
    conversation of any format that training takes.

    Raises:
        DataError: a source cannot be read, a record has no instruction, or there is none at all.
    """
    tasks: list[Task] = []
    problems: list[str] = []
    names: set[str] = set()
    for source in sources:
        for record in read(source):
            try:
                if not isinstance(record, Record):
                    raise RowError("malformed", record.problem)
                task = _task(record, source.format, names)
            except RowError as error:
                problems.append(f"{record.where}: {error}")
            else:
                names.add(task.id)
                tasks.append(task)
    if problems:
        more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(
            f"{len(problems)} records have no instruction to begin with:\n  "
            + "\n  ".join(problems[:_SHOWN])
            + more
            + "\nWanted: instruction (with input or instances), prompt, question, text, or a "
            "conversation. Take the records out, or leave them out with skip and take."
        )
    if not tasks:
        where = ", ".join(source.path for source in sources)
        raise DataError(f"{where}: no records to begin with.")
    return tasks


_SHOWN = 10


def _task(record: Record, format_name: str, names: set[str]) -> Task:
    value = record.value
    said = value.get("id")
    place = Path(record.where).name
    name = str(said) if isinstance(said, str | int) and str(said) not in names else place
    name = name if name not in names else record.where
    instruction = value.get("instruction")
    if isinstance(instruction, str) and instruction.strip() and format_name == "auto":
        label = value.get("is_classification")
        return Task(
            name,
            instruction.strip(),
            tuple(_instances(value)),
            label if isinstance(label, bool) else None,
        )
    if format_name == "auto":
        for field in ("prompt", "question", "query", "text"):
            found = value.get(field)
            if isinstance(found, str) and found.strip():
                return Task(name, found.strip())
    row = convert(value, detect(value).format if format_name == "auto" else format_name)
    if isinstance(row, Conversation):
        for message in row.messages:
            if message.role == "user" and message.content.strip():
                return Task(name, message.content.strip())
    raise RowError("no instruction", "no user says anything in it")


def _instances(value: Mapping[str, Any]) -> Iterator[Instance]:
    found = value.get("instances", [value])
    for each in found if isinstance(found, list) else []:
        if isinstance(each, Mapping):
            given, output = each.get("input") or "", each.get("output") or ""
            if isinstance(given, str) and isinstance(output, str) and (given or output):
                yield Instance(given.strip(), output.strip())
