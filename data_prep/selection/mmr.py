"""Maximal marginal relevance: rows that are wanted for themselves and unlike those chosen."""

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
from data_prep.selection.relevance import centrality, length_rank


def mmr(
    vectors: NDArray[np.float32], relevance: NDArray[np.float64], share: float, count: int
) -> NDArray[np.int64]:
    """Choose rows one by one, each time the best of relevance and distance from those chosen.

    Args:
        vectors: unit vectors, shape ``[rows, dimensions]``.
        relevance: of each row, on the scale of cosines.
        share: the weight of relevance, lambda in the source; the rest is the distance's.
        count: how many rows; at most as many as there are.

    Returns:
        Their indices in the order of choice. Up to ties, which go to the earlier row, the chosen
        rows do not depend on the order of rows.

    Source:
        Carbonell and Goldstein (1998), The use of MMR, diversity-based reranking.
    """
    chosen = np.empty(count, np.int64)
    kernels.choose_in_turn(np.ascontiguousarray(vectors), relevance, share, count, chosen)
    return chosen


class Mmr(BaseModel):
    """Keep rows that are relevant, and unlike each other."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["mmr"] = "mmr"
    count: Count
    """How many rows stay: a number, or a fraction of them."""
    relevance: Literal["centrality", "length"] = "centrality"
    """What a row is wanted for: being typical of all (the cosine to their mean), or having more
    tokens than others (the share of rows that are shorter)."""
    share: float = Field(default=0.5, ge=0, le=1)
    """The weight of relevance; the rest is the weight of being unlike the rows chosen before."""
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
        vectors = vectors if len(rows) == len(vectors) else vectors[rows]
        by_length = self.relevance == "length"
        relevance = length_rank(candidates.tokens[rows]) if by_length else centrality(vectors)
        chosen = rows[mmr(vectors, relevance, self.share, some)]
        kept = filled(chosen, count, len(candidates))
        reason = f"not among the {count} rows of most marginal relevance"
        return Choice(kept, reason, " ".join(filter(None, (note, about))))
