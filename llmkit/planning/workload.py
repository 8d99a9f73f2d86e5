"""Which tokens the heaviest moments of a training see: of prepared data, or as a recipe allows."""

from dataclasses import dataclass, replace

import numpy as np

from data_prep.columns import ListColumn
from data_prep.prepared import PreparedDataset
from llmkit.training.batching import BAD, GOOD, MISMATCHED, Sequence, Sequences
from llmkit.training.settings import TrainingConfig
from llmkit.training.units import UNITS_OF

KINDS = {"rows": None, "pairs": (GOOD, BAD), "labelled": (GOOD, MISMATCHED)}
"""The kinds of the two rows of a unit."""
FIRST = 50
"""Sequences at the start in which the checks before training look for a pack."""


@dataclass(frozen=True)
class Workload:
    """Sequences to plan for."""

    batch: list[Sequence]
    """Those of the longest forward pass."""
    first: list[Sequence]
    """What the checks before training look at."""
    watched: Sequence
    """The longest that the loss is evaluated on."""
    sequences: int | None
    """In the training split; None while that is not known."""
    tokens: int | None
    """In the training split."""
    source: str
    """Where this is known from, for a person."""


def workload_of(prepared: PreparedDataset, config: TrainingConfig) -> Workload:
    """The longest sequences of a prepared data set."""
    train, lengths = _split(prepared, "train")
    held_out, held_lengths = _split(prepared, "validation")
    longest = np.argsort(-lengths, kind="stable")[: config.batch.rows]
    few = [train[index] for index in range(min(4, len(train)))]
    evaluated = (
        held_out[int(held_lengths.argmax())]
        if len(held_out)
        else max(few, key=lambda each: len(each.input_ids))
    )
    return Workload(
        [train[int(index)] for index in longest],
        [train[index] for index in range(min(FIRST, len(train)))],
        evaluated,
        len(train),
        int(lengths.sum()),
        f"the longest of {len(train)} prepared sequences",
    )


def assumed_workload(max_tokens: int, packing: bool, config: TrainingConfig) -> Workload:  # noqa: FBT001
    """Sequences as long as the recipe allows, every token supervised: the most there can be."""
    # Any tokens would do to count, but a probe trains: of one token only, bfloat16 loses too much.
    ids = [64 + 37 * place % 128 for place in range(max_tokens)]
    one = Sequence.of_row(ids, [True] * max_tokens)
    pair = Sequence.joined(one.row(0, max_tokens // 2 or 1), one.row(0, max_tokens // 2 or 1))
    kinds = KINDS[UNITS_OF[config.method]]
    if kinds:  # two rows, each of them as long as is allowed
        both = Sequence.joined(one, one)
        one = pair = replace(both, row_kinds=np.array(kinds, np.int8))
    return Workload(
        [one] * config.batch.rows,
        [pair, one] if packing else [one, one],
        one,
        None,
        None,
        f"data.max_tokens={max_tokens}, every token supervised: the data is not prepared yet",
    )


def _split(prepared: PreparedDataset, name: str) -> tuple[Sequences, np.ndarray]:
    table = prepared.sequences(name)
    rows = ListColumn(table["row_lengths"])
    return Sequences(table), np.array([int(each.sum()) for each in rows], np.int64)
