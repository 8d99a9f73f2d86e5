"""Greedy k-centre: rows such that no other row is far from all of them."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from data_prep.selection import kernels
from data_prep.selection.choice import (
    Candidates,
    Choice,
    Count,
    filled,
    readable_first,
    vectors_of,
    wanted,
)
from data_prep.selection.relevance import centrality


def k_centre(vectors: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Choose the most central row, then each time the row farthest from all chosen ones.

    The largest distance of any row to its nearest chosen one is at most twice what the best choice
    of as many rows could reach. Distances are Euclidean between unit vectors, which order rows as
    their angles do.

    Args:
        vectors: unit vectors, shape ``[rows, dimensions]``.
        count: how many rows; at most as many as there are.

    Returns:
        Their indices in the order of choice. Up to ties, which go to the earlier row, the chosen
        rows do not depend on the order of rows.

    Source:
        Gonzalez (1985), Clustering to minimize the maximum intercluster distance; for choosing
        training data, Sener and Savarese (2018), arXiv 1708.00489.
    """
    chosen = np.empty(count, np.int64)
    # The row that is least like its closest chosen one is the farthest one.
    vectors = np.ascontiguousarray(vectors)
    kernels.choose_in_turn(vectors, centrality(vectors), 0.0, count, chosen)
    return chosen


class KCentre(BaseModel):
    """Keep rows that leave no other row far from all of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["k_centre"] = "k_centre"
    count: Count
    """How many rows stay: a number, or a fraction of them."""
    model: str = Field(default="all-minilm-l6-v2", min_length=1)
    """The sentence-embedding model."""
    on: Literal["prompt", "response", "both"] = "both"
    """The text that is embedded."""
    compare_random: bool = True
    """Also write as many rows chosen at random: a rule must beat those to be worth anything."""

    def choose(self, candidates: Candidates) -> Choice:
        """Choose rows.

        Raises:
            DataError: they were not embedded.
        """
        vectors = vectors_of(candidates, self.kind)
        count, note = wanted(self.count, len(candidates))
        rows, some, about = readable_first(vectors, count)
        chosen = rows[k_centre(vectors if len(rows) == len(vectors) else vectors[rows], some)]
        kept = filled(chosen, count, len(candidates))
        reason = f"not among the {count} rows that cover the others best"
        return Choice(kept, reason, " ".join(filter(None, (note, about))))
