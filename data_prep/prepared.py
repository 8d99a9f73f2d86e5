"""The prepared data set on disk: memory-mapped Arrow sequences, the ledger, and sample rows."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep.dedup.certificates import Certificate
from data_prep.errors import DataError
from data_prep.ledger import Ledger
from data_prep.rendering import Rendered, as_messages
from data_prep.rows import Completion, Conversation, Row

SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("supervised", pa.list_(pa.bool_())),
        ("row_lengths", pa.list_(pa.int32())),
        ("rows", pa.list_(pa.string())),
    ]
)
WRITE_BATCH = 256


@dataclass(frozen=True)
class Sample:
    """A row kept beside the sequences, so that later stages can render and ask it again."""

    where: str
    messages: list[dict[str, Any]]
    """What to send to a chat endpoint; empty for completions."""
    tools: list[dict[str, Any]]
    prompt: str
    """What to send to a completion endpoint; empty for conversations."""
    ids: list[int]
    supervised: list[bool]
    prompt_tokens: int


@dataclass(frozen=True)
class PreparedDataset:
    """What `prepare` left in a folder."""

    folder: Path
    figures: dict[str, Any]

    @staticmethod
    def create(
        folder: Path,
        ledger: Ledger,
        figures: dict[str, Any],
        samples: Sequence[tuple[str, Row, Rendered]],
        certificates: Sequence[Certificate],
    ) -> "PreparedDataset":
        """Write the ledger with its figures, the dropped rows, certificates, and the samples."""
        _write_lines(folder / "certificates.jsonl", [c.model_dump() for c in certificates])
        _write_lines(folder / "dropped.jsonl", [row.model_dump() for row in ledger.dropped])
        _write_lines(folder / "samples.jsonl", [_sample(*sample) for sample in samples])
        _write_json(folder / "ledger.json", figures)
        return PreparedDataset(folder, figures)

    @staticmethod
    def open(folder: Path) -> "PreparedDataset":
        """Open a folder that `prepare` wrote.

        Raises:
            DataError: it holds no prepared data set.
        """
        path = folder / "ledger.json"
        if not path.is_file():
            raise DataError(f"{folder}: no prepared data set here. Run: llmkit prep RECIPE")
        return PreparedDataset(folder, json.loads(path.read_text(encoding="utf-8")))

    def sequences(self, split: str) -> pa.Table:
        """The sequences of ``train`` or ``validation``, memory-mapped.

        Returns:
            A table with one row a sequence: ``input_ids`` and ``supervised`` of equal length,
            ``row_lengths`` (they add up to it) and ``rows`` (where each came from).
        """
        with pa.memory_map(str(self.folder / f"{split}.arrow")) as file:
            return pa.ipc.open_file(file).read_all()

    def samples(self) -> list[Sample]:
        """The rows kept for verification, their prompts whole."""
        # Not str.splitlines: text may hold U+2028 and its like, which are no line ends in JSON.
        with (self.folder / "samples.jsonl").open(encoding="utf-8") as lines:
            return [Sample(**json.loads(line)) for line in lines]


def write(folder: Path, split: str, sequences: Sequence[Sequence[tuple[str, Rendered]]]) -> None:
    """Write sequences of rows as one Arrow file."""
    with pa.ipc.new_file(str(folder / f"{split}.arrow"), SCHEMA) as file:
        for start in range(0, len(sequences), WRITE_BATCH):
            batch = [_columns(sequence) for sequence in sequences[start : start + WRITE_BATCH]]
            file.write_batch(pa.RecordBatch.from_pylist(batch, SCHEMA))


def _columns(sequence: Sequence[tuple[str, Rendered]]) -> dict[str, Any]:
    return {
        "input_ids": [index for _, row in sequence for index in row.ids],
        "supervised": [flag for _, row in sequence for flag in row.supervised],
        "row_lengths": [len(row.ids) for _, row in sequence],
        "rows": [where for where, _ in sequence],
    }


def _sample(where: str, row: Row, tokens: Rendered) -> dict[str, Any]:
    return {
        "where": where,
        "messages": as_messages(row),
        "tools": [dict(tool) for tool in row.tools] if isinstance(row, Conversation) else [],
        "prompt": row.prompt if isinstance(row, Completion) else "",
        "ids": tokens.ids,
        "supervised": tokens.supervised,
        "prompt_tokens": tokens.prompt_tokens,
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_lines(path: Path, values: Sequence[Any]) -> None:
    lines = (json.dumps(value, ensure_ascii=False) + "\n" for value in values)
    path.write_text("".join(lines), encoding="utf-8")
