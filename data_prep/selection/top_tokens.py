"""The rows with most tokens."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from data_prep.selection.choice import Candidates, Choice, Count, wanted


def top_tokens(tokens: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Choose the rows with most tokens.

    Args:
        tokens: of each row.
        count: how many rows; at most as many as there are.

    Returns:
        Their indices, ascending; of rows that are equally long the earlier ones.
    """
    return np.sort(np.argsort(-tokens, kind="stable")[:count])


class TopTokens(BaseModel):
    """Keep the rows with most tokens: long answers teach more."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["top_tokens"] = "top_tokens"
    count: Count
    """How many rows stay: a number, or a fraction of them."""
    compare_random: bool = True
    """Also write as many rows chosen at random: a rule must beat those to be worth anything."""

    def choose(self, candidates: Candidates) -> Choice:
        """Choose rows. Depends on the order of rows only between rows of one length."""
        count, note = wanted(self.count, len(candidates))
        kept = top_tokens(candidates.tokens, count)
        return Choice(kept, f"not among the {count} rows with most tokens", note)
