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
from itertools import accumulate
from typing import Any

import pyarrow as pa
import torch
from torch.utils.data import Dataset


@dataclass(frozen=True)
class Sequence:
    """One pack, or one row when nothing is packed."""

    input_ids: list[int]
    supervised: list[bool]
    row_lengths: list[int]


class Sequences(Dataset[Sequence]):
    """The sequences of a prepared split, read from memory-mapped Arrow as they are asked for."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        """The number of sequences."""
        return int(self._table.num_rows)

    def __getitem__(self, index: int) -> Sequence:
        """One sequence."""
        columns = ("input_ids", "supervised", "row_lengths")
        return Sequence(*(self._table[name][index].as_py() for name in columns))

    def __iter__(self) -> Iterator[Sequence]:
        """Every sequence in order."""
        return (self[index] for index in range(len(self)))

    def tokens(self) -> int:
        """All tokens of the split."""
        return sum(len(sequence.input_ids) for sequence in self)


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
    ids = [index for sequence in sequences for index in sequence.input_ids]
    supervised = [flag for sequence in sequences for flag in sequence.supervised]
    lengths = [length for sequence in sequences for length in sequence.row_lengths]
    starts = [0, *accumulate(lengths)]
    positions = [position for length in lengths for position in range(length)]
    input_ids = torch.tensor(ids)
    targets = torch.tensor(supervised) & (torch.tensor(positions) > 0)
    predicted = targets.nonzero()[:, 0]
    return {
        "input_ids": input_ids[None],
        "position_ids": torch.tensor(positions)[None],
        "row_starts": starts,
        "predict_at": predicted - 1,
        "shift_labels": input_ids[predicted],
    }
