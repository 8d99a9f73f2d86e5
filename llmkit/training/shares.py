"""Which sequences each process trains on in each forward pass.

Every sequence is used exactly once an epoch, and a step of N processes has the sequences that one
process with N times the rows would take:

    order       5 2 7 | 0 3 6 | 1 4          8 sequences, 3 processes, rows=1
    process 0   5       0       1
    process 1     2       3       4
    process 2       7       6     (1)        nothing is left: it runs one once more, uncounted

accelerate's own split repeats sequences there and counts them twice, or gives a process one batch
fewer, and then the others wait for its gradients for ever.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from llmkit.training.batching import Sequence


class Turn(NamedTuple):
    """One sequence of a batch."""

    place: int
    """Of the sequence in the data set."""
    counted: bool
    """False where a process only keeps the others company."""


class Share(Sampler[list[Turn]]):
    """The batches of one process, in an order that the seed and the epoch decide."""

    def __init__(self, sequences: int, rows: int, seed: int, rank: int, processes: int) -> None:
        self._sequences = sequences
        self._rows = rows
        self._seed = seed
        self._rank = rank
        self._processes = processes
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take another order."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Batches an epoch, the same for every process."""
        return math.ceil(self._sequences / (self._rows * self._processes))

    def __iter__(self) -> Iterator[list[Turn]]:
        """This process's batches."""
        # Seeds are mixed: with their sum, seed 1's first epoch would be seed 0's second.
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order = torch.randperm(self._sequences, generator=generator).tolist()
        together = self._rows * self._processes
        for start in range(0, self._sequences, together):
            first = start + self._rank * self._rows
            mine = order[first : first + self._rows]
            yield [Turn(each, counted=True) for each in mine] or [Turn(order[start], counted=False)]


class _Turns(Dataset[tuple[Sequence, bool]]):
    """Sequences by turn."""

    def __init__(self, sequences: Dataset[Sequence]) -> None:
        self._sequences = sequences

    def __len__(self) -> int:
        return len(self._sequences)  # type: ignore[arg-type]

    def __getitem__(self, turn: Turn) -> tuple[Sequence, bool]:
        return self._sequences[turn.place], turn.counted


class ShareLoader(DataLoader[Any]):
    """Batches of a share, with ``counted``: whether they belong to the step at all."""

    def __init__(
        self,
        sequences: Dataset[Sequence],
        share: Share,
        collate: Callable[[list[Sequence]], dict[str, Any]],
        *,
        pin_memory: bool,
    ) -> None:
        def together(parts: list[tuple[Sequence, bool]]) -> dict[str, Any]:
            return {**collate([part for part, _ in parts]), "counted": parts[0][1]}

        super().__init__(
            _Turns(sequences),
            batch_sampler=share,
            collate_fn=together,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # or the loader would draw from the training's own
        )
        self._share = share

    def set_epoch(self, epoch: int) -> None:
        """Take another order; the Trainer calls this."""
        self._share.set_epoch(epoch)
