"""What rows are chosen by, how many, and what comes out."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import xxhash
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, StrictFloat, StrictInt

from data_prep.embeddings import has_vector
from data_prep.errors import DataError


def _whole_or_fraction(count: int | float) -> int | float:
    if isinstance(count, int) and count < 1:
        raise ValueError("wants 1 row or more")
    if isinstance(count, float) and not 0 < count < 1:
        raise ValueError("wants a whole number of rows (1000), or a fraction between 0 and 1 (0.1)")
    return count


Count = Annotated[
    StrictInt | StrictFloat, Field(union_mode="smart"), AfterValidator(_whole_or_fraction)
]
"""A number of rows, or a fraction of them."""


@dataclass(frozen=True)
class Candidates:
    """Rows that may be chosen, one entry a row in each array."""

    hashes: NDArray[np.uint64]
    """Of each row's whole text: see `text_hashes`."""
    tokens: NDArray[np.int64]
    """Tokens that each row renders to."""
    vectors: NDArray[np.float32] | None = None
    """Sentence embeddings, for the rules that compare rows; zeros where the model cannot read."""

    def __len__(self) -> int:
        return len(self.hashes)


@dataclass(frozen=True)
class Choice:
    """The rows that stay."""

    kept: NDArray[np.int64]
    """Their indices, ascending."""
    reason: str
    """Why each of the others goes."""
    note: str = ""
    """What the person should know of this choice; empty when it is as asked for."""


def text_hashes(texts: Iterable[str]) -> NDArray[np.uint64]:
    """Hash the whole text of each row, so that a choice can go by what a row is, not where."""
    return np.fromiter((xxhash.xxh3_64_intdigest(text.encode()) for text in texts), np.uint64)


def wanted(count: int | float, rows: int) -> tuple[int, str]:
    """How many rows are to be chosen.

    Args:
        count: a number of rows, or a fraction of them; of some rows at least one.
        rows: how many there are.

    Returns:
        At most ``rows``; and a note when more are asked for than there are.
    """
    if isinstance(count, float):
        return min(rows, max(1, round(count * rows))), ""
    if count > rows:
        return rows, f"{count} rows were asked for and there are {rows}: all of them stay."
    return count, ""


def vectors_of(candidates: Candidates, kind: str) -> NDArray[np.float32]:
    """The embeddings that a rule compares.

    Raises:
        DataError: the rows were not embedded.
    """
    if candidates.vectors is None:
        raise DataError(
            f"selection of kind {kind}: the rows were not embedded. Load the model that it names "
            "and embed them, or choose by another kind (top_tokens, random)."
        )
    return candidates.vectors


def readable_first(vectors: NDArray[np.float32], count: int) -> tuple[NDArray[np.int64], int, str]:
    """Set aside rows without a vector: nothing can be said of what they are like.

    Returns:
        The rows to choose from, how many of them, and a note. Rows without a vector are taken
        only when the others are too few.

    Raises:
        DataError: no row has a vector, so there is nothing to choose by.
    """
    readable = np.flatnonzero(has_vector(vectors))
    if len(readable) == len(vectors):
        return readable, count, ""
    if not len(readable):
        raise DataError(
            f"select: the embedding model cannot read any of the {len(vectors)} rows. Name a model "
            "of their language (select.model), or choose by another kind (top_tokens, random)."
        )
    unreadable = len(vectors) - len(readable)
    taken = max(0, count - len(readable))
    note = (
        f"The embedding model cannot read {unreadable} rows: they were left to the last, and "
        f"{f'the first {taken} of them' if taken else 'none'} taken."
    )
    return readable, count - taken, note


def filled(chosen: NDArray[np.int64], count: int, rows: int) -> NDArray[np.int64]:
    """The chosen rows, and the first of the others where these are too few, ascending."""
    others = np.setdiff1d(np.arange(rows), chosen)
    return np.sort(np.concatenate([chosen, others[: count - len(chosen)]]))
