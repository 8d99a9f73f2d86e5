"""The rules that choose among rows, as a recipe names them."""

from typing import Annotated

from pydantic import Field

from data_prep.selection.choice import Candidates, Choice
from data_prep.selection.k_centre import KCentre
from data_prep.selection.mmr import Mmr
from data_prep.selection.random_subset import RandomSubset, random_subset
from data_prep.selection.top_tokens import TopTokens

SelectionConfig = Annotated[TopTokens | RandomSubset | Mmr | KCentre, Field(discriminator="kind")]
"""One rule. Its ``choose`` takes `Candidates` and gives a `Choice`."""


def compared(candidates: Candidates, choice: Choice, seed: int) -> Choice:
    """As many rows at random, from all of them, to compare a choice with.

    Args:
        candidates: the rows that were chosen from.
        choice: what was chosen.
        seed: another seed, other rows.
    """
    count = len(choice.kept)
    kept = random_subset(candidates.hashes, count, seed)
    return Choice(kept, f"not among {count} rows chosen at random")
