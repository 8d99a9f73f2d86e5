"""The prepared data set on disk: memory-mapped Arrow sequences, the ledger, and sample rows."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep.columns import ListColumn, list_array
from data_prep.dedup.certificates import Certificate
from data_prep.errors import DataError
from data_prep.ledger import Ledger
from data_prep.packing import Packs
from data_prep.rendering import Rendered, as_messages
from data_prep.rows import Completion, Row

ROWS = pa.schema(
    [("where", pa.string()), ("ids", pa.list_(pa.int32())), ("supervised", pa.list_(pa.uint8()))]
)
"""Rows before they are packed."""
SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("supervised", pa.list_(pa.uint8())),
        ("row_lengths", pa.list_(pa.int32())),
        ("rows", pa.list_(pa.string())),
    ]
)
"""Sequences. ``supervised`` is 0 or 1 in a byte: Arrow's own bools are bits, which training could
not read without unpacking them."""
WRITE_BATCH = 256
"""Sequences (and rows) that are in memory at once while they are written."""


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
            A table with one row a sequence: ``input_ids`` and ``supervised`` (0 or 1) of equal
            length, ``row_lengths`` (they add up to it) and ``rows`` (where each came from).
        """
        with pa.memory_map(str(self.folder / f"{split}.arrow")) as file:
            return pa.ipc.open_file(file).read_all()

    def samples(self) -> list[Sample]:
        """The rows kept for verification, their prompts whole."""
        # Not str.splitlines: text may hold U+2028 and its like, which are no line ends in JSON.
        with (self.folder / "samples.jsonl").open(encoding="utf-8") as lines:
            return [Sample(**json.loads(line)) for line in lines]


def token_table(rows: Iterable[tuple[str, Rendered]]) -> pa.Table:
    """Rendered rows as a table of ``ROWS``: what `write` takes, five bytes a token."""
    batches = []
    remaining = iter(rows)
    while batch := list(islice(remaining, WRITE_BATCH)):
        places = pa.array([where for where, _ in batch], pa.string())
        ids = list_array([row.ids for _, row in batch], pa.int32())
        supervised = list_array([row.supervised for _, row in batch], pa.uint8())
        batches.append(pa.RecordBatch.from_arrays([places, ids, supervised], schema=ROWS))
    return pa.Table.from_batches(batches, ROWS)


def write(folder: Path, split: str, rows: pa.Table, packs: Packs) -> None:
    """Write packed rows as one Arrow file, some packs at a time.

    Args:
        folder: where ``{split}.arrow`` is written.
        split: ``train`` or ``validation``.
        rows: a table of ``ROWS``; it may be memory-mapped and larger than memory.
        packs: which rows share a sequence.
    """
    ids, supervised = ListColumn(rows["ids"]), ListColumn(rows["supervised"])
    # Taking from many chunks would join them again for every batch.
    places = rows["where"].cast(pa.large_string()).combine_chunks()
    with pa.ipc.new_file(str(folder / f"{split}.arrow"), SCHEMA) as file:
        for first in range(0, len(packs), WRITE_BATCH):
            starts = packs.starts[first : first + WRITE_BATCH + 1]
            chosen = packs.rows[starts[0] : starts[-1]].tolist()
            row_ids = list_array([ids[row] for row in chosen], pa.int32())
            masks = list_array([supervised[row] for row in chosen], pa.uint8())
            by_pack = pa.array(starts - starts[0], pa.int32())
            begins = row_ids.offsets.take(by_pack)  # where each pack begins among the tokens
            columns = [
                pa.ListArray.from_arrays(begins, row_ids.values),
                pa.ListArray.from_arrays(begins, masks.values),
                pa.ListArray.from_arrays(by_pack, row_ids.value_lengths()),
                pa.ListArray.from_arrays(by_pack, places.take(pa.array(chosen)).cast(pa.string())),
            ]
            file.write_batch(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))


def _sample(where: str, row: Row, tokens: Rendered) -> dict[str, Any]:
    return {
        "where": where,
        "messages": as_messages(row),
        "tools": [] if isinstance(row, Completion) else [dict(tool) for tool in row.tools],
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
