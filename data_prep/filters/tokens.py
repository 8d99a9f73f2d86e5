"""Rows by their length in tokens."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_prep.filters.candidate import Candidate, Verdict
from data_prep.filters.limits import check_limits, within


class TokensFilter(BaseModel):
    """Keeps rows of so many tokens, counted as they are rendered: template and all turns."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["tokens"]
    min: int | None = Field(default=None, ge=0)
    """The fewest tokens of a row that stays; null for no limit."""
    max: int | None = Field(default=None, ge=0)
    """The most tokens of a row that stays; null for no limit."""

    @model_validator(mode="after")
    def _limits(self) -> Self:
        check_limits(self.min, self.max)
        return self

    def judge(self, candidate: Candidate) -> Verdict:
        """Keep a row whose tokens lie within the limits."""
        return within(candidate.tokens, self.min, self.max, f"{candidate.tokens} tokens")
