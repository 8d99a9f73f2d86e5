"""Rows by how much of them is neither letters, digits nor white space."""

import unicodedata
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_prep.filters.candidate import Candidate, Part, Verdict
from data_prep.filters.limits import check_limits, within_share


class SymbolsFilter(BaseModel):
    """Keeps rows by their share of symbols: punctuation, signs, emoji; white space is left out.

    Letters, digits, and the marks that belong to letters are no symbols, in any script. A text
    without a visible character has no share, and stays.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["symbols"]
    min: float | None = Field(default=None, ge=0, le=1)
    """The smallest share of a row that stays; null for no limit."""
    max: float | None = Field(default=None, ge=0, le=1)
    """The largest share of a row that stays (0.3); null for no limit."""
    on: Part = "both"
    """What is measured: the ``prompt``, the ``response``, or ``both`` together."""

    @model_validator(mode="after")
    def _limits(self) -> Self:
        check_limits(self.min, self.max)
        return self

    def judge(self, candidate: Candidate) -> Verdict:
        """Keep a row whose share of symbols lies within the limits."""
        visible = "".join(candidate.text(self.on).split())
        symbols = sum(
            visible.count(character) for character in set(visible) if _is_symbol(character)
        )
        return within_share(symbols, len(visible), self.min, self.max, f"of {self.on} is symbols")


def _is_symbol(character: str) -> bool:
    return not character.isalnum() and not unicodedata.category(character).startswith("M")
