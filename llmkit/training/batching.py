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
    row targets   2         2       1          how many of them each row has

Preferences are about whole rows, each of a kind: a pair is a chosen row and a rejected one after
it; a labelled row is followed by a mismatched one, which has an answer to something else. What is
learned from mismatched rows is a number without a gradient, so they make up a batch of their own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from data_prep.columns import ListColumn

BAD, GOOD, MISMATCHED = 0, 1, 2
"""Kinds of rows: rejected or labelled bad, chosen or labelled good, for KTO's estimate alone."""


@dataclass(frozen=True, eq=False)
class Sequence:
    """One pack, or one row when nothing is packed."""

    input_ids: NDArray[np.int32]
    supervised: NDArray[np.bool_]
    """Same length as ``input_ids``."""
    row_lengths: NDArray[np.int32]
    row_kinds: NDArray[np.int8] | None = None
    """One a row, where rows are preferences."""
    reference: NDArray[np.float32] | None = None
    """One a row: the log-probability of its supervised tokens before training, nats."""

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
            _all_or_none([part.row_kinds for part in parts]),
            _all_or_none([part.reference for part in parts]),
        )

    def row(self, index: int, most: int | None = None) -> "Sequence":
        """One of its rows, by itself and of no kind; of a long one the first ``most`` tokens."""
        start = int(self.row_lengths[:index].sum())
        length = min(int(self.row_lengths[index]), most or len(self.input_ids))
        part = slice(start, start + length)
        lengths = np.array([length], np.int32)
        return Sequence(self.input_ids[part], self.supervised[part], lengths)

    def rows_where(self, wanted: NDArray[np.bool_]) -> "Sequence":
        """Some of its rows, their kinds and references kept.

        Args:
            wanted: one a row.
        """
        tokens = np.repeat(wanted, self.row_lengths)
        return Sequence(
            self.input_ids[tokens],
            self.supervised[tokens],
            self.row_lengths[wanted],
            None if self.row_kinds is None else self.row_kinds[wanted],
            None if self.reference is None else self.reference[wanted],
        )

    def without_kinds(self) -> "Sequence":
        """The same rows, all of them alike."""
        return replace(self, row_kinds=None, reference=None)


def _all_or_none(parts: list[NDArray[Any] | None]) -> NDArray[Any] | None:
    present = [part for part in parts if part is not None]
    return np.concatenate(present) if present and len(present) == len(parts) else None


class Sequences(Dataset[Sequence]):
    """The sequences of a prepared split: views of memory-mapped Arrow, nothing is copied."""

    def __init__(self, table: pa.Table, reference: NDArray[np.float32] | None = None) -> None:
        """Take a split.

        Args:
            table: its sequences.
            reference: one a row of the split, in order.
        """
        self._table = table
        self._ids = ListColumn(table["input_ids"])
        self._supervised = ListColumn(table["supervised"])
        self._row_lengths = ListColumn(table["row_lengths"])
        kinds = "row_kinds" if "row_kinds" in table.column_names else None
        self._row_kinds = ListColumn(table[kinds]) if kinds else None
        self._reference = reference
        counts = pc.list_value_length(table["row_lengths"]).to_numpy()
        self._row_starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])

    def with_reference(self, reference: NDArray[np.float32]) -> "Sequences":
        """The same, each row with what it is compared with."""
        return Sequences(self._table, reference)

    @property
    def rows(self) -> int:
        """The number of rows in all sequences."""
        return int(self._row_starts[-1])

    def pairs_of_kinds(self) -> set[tuple[int, int]] | None:
        """Which kinds stand beside each other, two by two; None where rows have none.

        Raises:
            ValueError: a sequence has an odd number of rows, or not a kind for each.
        """
        if self._row_kinds is None:
            return None
        counts = pc.list_value_length(self._table["row_kinds"]).to_numpy()
        if (counts % 2).any() or (counts != np.diff(self._row_starts)).any():
            raise ValueError("rows that are no pairs")
        kinds = pc.list_flatten(self._table["row_kinds"]).to_numpy().reshape(-1, 2)
        return {(int(first), int(second)) for first, second in np.unique(kinds, axis=0)}

    def __len__(self) -> int:
        """The number of sequences."""
        return len(self._ids)

    def __getitem__(self, index: int) -> Sequence:
        """One sequence."""
        ids = self._ids[index]
        rows = slice(self._row_starts[index], self._row_starts[index + 1])
        return Sequence(
            ids,
            self._supervised[index].view(np.bool_),
            self._row_lengths[index],
            None if self._row_kinds is None else self._row_kinds[index],
            None if self._reference is None else self._reference[rows],
        )

    def __iter__(self) -> Iterator[Sequence]:
        """Every sequence in order."""
        return (self[index] for index in range(len(self)))


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch, and one inside it, with its tensors on a device; pinned ones are not waited for."""
    return {name: _moved(value, device) for name, value in batch.items()}


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Mapping):
        return to_device(value, device)
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(device, non_blocking=value.is_pinned())


def collate(sequences: list[Sequence]) -> dict[str, Any]:
    """Lay sequences end to end.

    Args:
        sequences: shape ``[batch]``.

    Returns:
        ``input_ids`` and ``position_ids``, shape ``[1, tokens]``; ``row_starts``, where each row
        begins and the total, ``[rows + 1]`` as a plain list; ``predict_at``, positions whose next
        token is supervised, ``[supervised]``; ``shift_labels``, those next tokens, as many.
        The first token of a row is never a target: no token of its own row comes before it.
        ``row_targets``, how many each row has, ``[rows]`` as a plain list. Where rows are
        preferences also ``row_kinds`` and, where it is known, ``reference``, ``[rows]``; and
        ``mismatched``, where there are such rows: these as a batch of their own.
    """
    whole = Sequence.joined(*sequences)
    if whole.row_kinds is None:
        return _laid_out(whole)
    apart = whole.row_kinds == MISMATCHED
    batch = _laid_out(whole.rows_where(~apart))
    return batch | ({"mismatched": _laid_out(whole.rows_where(apart))} if apart.any() else {})


def _laid_out(whole: Sequence) -> dict[str, Any]:
    """The batch of rows that lie end to end."""
    lengths = whole.row_lengths
    ends = np.cumsum(lengths, dtype=np.int64)
    positions = np.arange(len(whole.input_ids)) - np.repeat(ends - lengths, lengths)
    predicted = np.flatnonzero(whole.supervised & (positions > 0))
    input_ids = torch.from_numpy(whole.input_ids.astype(np.int64))
    batch = {
        "input_ids": input_ids[None],
        "position_ids": torch.from_numpy(positions)[None],
        "row_starts": [0, *ends.tolist()],
        "row_targets": np.diff(np.searchsorted(predicted, [0, *ends])).tolist(),
        "predict_at": torch.from_numpy(predicted - 1),
        "shift_labels": input_ids[torch.from_numpy(predicted)],
    }
    if whole.row_kinds is not None:
        batch["row_kinds"] = torch.from_numpy(whole.row_kinds.astype(np.int64))
    if whole.reference is not None:
        batch["reference"] = torch.from_numpy(whole.reference.astype(np.float32))
    return batch
