"""Rows at random: what any cleverer choice is compared with."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from data_prep.selection.choice import Candidates, Choice, Count, wanted
from data_prep.splits import mixed


def random_subset(hashes: NDArray[np.uint64], count: int, seed: int) -> NDArray[np.int64]:
    """Choose rows at random, by what they say: neither order nor shards change which texts.

    Args:
        hashes: of each row's text.
        count: how many rows; at most as many as there are.
        seed: another seed, another choice.

    Returns:
        Their indices, ascending. Of rows with equal texts the earlier ones come first.

    Source:
        The keys are hashes put through the finaliser of SplitMix64, Steele et al. (2014).
    """
    return np.sort(np.argsort(mixed(hashes, seed), kind="stable")[:count])


class RandomSubset(BaseModel):
    """Keep rows at random."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["random"] = "random"
    count: Count
    """How many rows stay: a number, or a fraction of them."""
    seed: int = Field(default=0, ge=0, lt=2**64)
    """Another seed, another choice."""

    def choose(self, candidates: Candidates) -> Choice:
        """Choose rows; which texts does not depend on the order of rows."""
        count, note = wanted(self.count, len(candidates))
        kept = random_subset(candidates.hashes, count, self.seed)
        return Choice(kept, f"not among {count} rows chosen at random", note)
