"""Rows in shards -> the evaluation texts that stand in them, a shard at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_prep.contamination.index import EvaluationIndex
from data_prep.contamination.overlap import Overlap
from data_prep.contamination.overlaps import find_overlaps
from data_prep.contamination.tallies import Tally, merge, tally
from data_prep.embeddings import Embedder
from data_prep.row_codec import decode_row
from data_prep.row_text import prompt_text, response_text
from data_prep.shards import Rows
from data_prep.workers import map_ordered

TEXTS = 1024
"""Rows whose texts are embedded together."""


@dataclass(frozen=True)
class Search:
    """Looks at some rows."""

    rows: Rows
    index: EvaluationIndex
    embedder: Embedder | None

    def __call__(self, chosen: NDArray[np.int64]) -> tuple[list[tuple[Overlap, ...]], Tally]:
        """For each chosen row its overlaps, and their tally."""
        table = self.rows.take(chosen, "where", "row")
        rows = [decode_row(text) for text in table.column(1).to_pylist()]
        prompts, responses = (
            [prompt_text(row) for row in rows],
            [response_text(row) for row in rows],
        )
        overlaps = find_overlaps(self.index, prompts, responses, self.embedder)
        places = table.column(0).to_pylist()
        return overlaps, tally(self.index, places, prompts, responses, overlaps)


def search(
    rows: Rows,
    chosen: NDArray[np.int64],
    index: EvaluationIndex,
    embedder: Embedder | None,
    workers: int,
    progress: Callable[[str, int], None],
) -> tuple[dict[int, tuple[Overlap, ...]], Tally]:
    """Look for evaluation texts in some rows.

    Args:
        rows: all rows.
        chosen: numbers of those to look at, ascending.
        index: the evaluation texts.
        embedder: the model that the index was built with, when it was built with one.
        workers: processes; with a model, everything happens in this one.
        progress: told of rows as they are done.

    Returns:
        The overlaps of every row that has any, by its number; and the tally of all.
    """
    found: dict[int, tuple[Overlap, ...]] = {}
    tallies = []
    # A model rounds by what is embedded together: that must not depend on the shards.
    parts = list(_blocks(chosen) if embedder else _parts(rows, chosen))
    answers = map_ordered(Search(rows, index, embedder), parts, 1 if embedder else workers)
    for part, (overlaps, counted) in zip(parts, answers, strict=True):
        found |= {row: each for row, each in zip(part.tolist(), overlaps, strict=True) if each}
        tallies.append(counted)
        progress("looking for evaluation texts", len(part))
    return found, merge(tallies, index.config.examples)


def _blocks(chosen: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    return (chosen[start : start + TEXTS] for start in range(0, len(chosen), TEXTS))


def _parts(rows: Rows, chosen: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start, end in zip(rows.starts[:-1], rows.starts[1:], strict=True):
        inside = chosen[np.searchsorted(chosen, start) : np.searchsorted(chosen, end)]
        if len(inside):
            yield inside
