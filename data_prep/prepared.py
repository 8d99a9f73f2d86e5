"""The prepared data set on disk: memory-mapped Arrow sequences, the ledger, and sample rows."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep.contamination.overlap import Overlap
from data_prep.dedup.certificates import Certificate
from data_prep.errors import DataError
from data_prep.ledger import Dropped
from data_prep.rendering import Rendered, as_messages
from data_prep.rows import Completion, Conversation, Row


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
        figures: dict[str, Any],
        overview: dict[str, Any],
        dropped: Iterable[Dropped],
        samples: Sequence[tuple[str, Row, Rendered]],
        certificates: Iterable[Certificate],
        overlaps: Iterable[tuple[str, Overlap]],
    ) -> "PreparedDataset":
        """Write the ledger, what a report shows, dropped rows, certificates, and the samples."""
        _write_lines(folder / "certificates.jsonl", (c.model_dump() for c in certificates))
        found = ({"row": place, "overlap": overlap.model_dump()} for place, overlap in overlaps)
        _write_lines(folder / "overlaps.jsonl", found)
        _write_lines(folder / "dropped.jsonl", (row.model_dump() for row in dropped))
        _write_lines(folder / "samples.jsonl", (_sample(*sample) for sample in samples))
        _write_json(folder / "overview.json", overview)
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


def _sample(where: str, row: Row, tokens: Rendered) -> dict[str, Any]:
    return {
        "where": where,
        "messages": as_messages(row),
        "tools": [dict(tool) for tool in row.tools] if isinstance(row, Conversation) else [],
        "prompt": row.prompt if isinstance(row, Completion) else "",
        "ids": tokens.ids.tolist(),
        "supervised": tokens.supervised.tolist(),
        "prompt_tokens": tokens.prompt_tokens,
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_lines(path: Path, values: Iterable[Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
