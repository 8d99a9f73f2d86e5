"""Packed sequences -> batches without padding.

The packs of a batch are laid end to end in one sequence of shape ``[1, tokens]``. Position ids
restart at every row, ``row_starts`` tells attention where the rows are, and logits are wanted
only where the next token is supervised.

    ids         a b c d | e f g | h i          three rows
    positions   0 1 2 3 | 0 1 2 | 0 1
    row_starts  0         4       7     9
    supervised  . . x x | . x x | . x          tokens that carry loss
    predict at    1 2       4 5     7          the positions before them
    targets       c d       f g     i
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from data_prep.columns import ListColumn


@dataclass(frozen=True, eq=False)
class Sequence:
    """One pack, or one row when nothing is packed."""

    input_ids: NDArray[np.int32]
    supervised: NDArray[np.bool_]
    """Same length as ``input_ids``."""
    row_lengths: NDArray[np.int32]

    @staticmethod
    def of_row(ids: list[int], supervised: list[bool]) -> "Sequence":
        """One row by itself."""
        lengths = np.array([len(ids)], np.int32)
        return Sequence(np.array(ids, np.int32), np.array(supervised, np.bool_), lengths)

    @staticmethod
    def joined(*parts: "Sequence") -> "Sequence":
        """Sequences laid end to end."""
        return Sequence(
            np.concatenate([part.input_ids for part in parts]),
            np.concatenate([part.supervised for part in parts]),
            np.concatenate([part.row_lengths for part in parts]),
        )

    def row(self, index: int, most: int | None = None) -> "Sequence":
        """One of its rows, by itself; of a long one the first ``most`` tokens."""
        start = int(self.row_lengths[:index].sum())
        length = min(int(self.row_lengths[index]), most or len(self.input_ids))
        part = slice(start, start + length)
        lengths = np.array([length], np.int32)
        return Sequence(self.input_ids[part], self.supervised[part], lengths)


class Sequences(Dataset[Sequence]):
    """The sequences of a prepared split: views of memory-mapped Arrow, nothing is copied."""

    def __init__(self, table: pa.Table) -> None:
        self._ids = ListColumn(table["input_ids"])
        self._supervised = ListColumn(table["supervised"])
        self._row_lengths = ListColumn(table["row_lengths"])

    def __len__(self) -> int:
        """The number of sequences."""
        return len(self._ids)

    def __getitem__(self, index: int) -> Sequence:
        """One sequence."""
        supervised = self._supervised[index].view(np.bool_)
        return Sequence(self._ids[index], supervised, self._row_lengths[index])

    def __iter__(self) -> Iterator[Sequence]:
        """Every sequence in order."""
        return (self[index] for index in range(len(self)))


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch with its tensors on a device."""
    return {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}


def collate(sequences: list[Sequence]) -> dict[str, Any]:
    """Lay sequences end to end.

    Args:
        sequences: shape ``[batch]``.

    Returns:
        ``input_ids`` and ``position_ids``, shape ``[1, tokens]``; ``row_starts``, where each row
        begins and the total, ``[rows + 1]`` as a plain list; ``predict_at``, positions whose next
        token is supervised, ``[supervised]``; ``shift_labels``, those next tokens, as many.
        The first token of a row is never a target: no token of its own row comes before it.
    """
    whole = Sequence.joined(*sequences)
    lengths = whole.row_lengths
    ends = np.cumsum(lengths, dtype=np.int64)
    positions = np.arange(len(whole.input_ids)) - np.repeat(ends - lengths, lengths)
    predicted = np.flatnonzero(whole.supervised & (positions > 0))
    input_ids = torch.from_numpy(whole.input_ids.astype(np.int64))
    return {
        "input_ids": input_ids[None],
        "position_ids": torch.from_numpy(positions)[None],
        "row_starts": [0, *ends.tolist()],
        "predict_at": torch.from_numpy(predicted - 1),
        "shift_labels": input_ids[torch.from_numpy(predicted)],
    }
