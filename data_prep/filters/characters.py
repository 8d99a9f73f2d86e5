"""Rows by their length in characters."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_prep.filters.candidate import Candidate, Part, Verdict
from data_prep.filters.limits import check_limits, within


class CharactersFilter(BaseModel):
    """Keeps rows of so many characters; white space around a part does not count."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["characters"]
    min: int | None = Field(default=None, ge=0)
    """The fewest characters of a row that stays; null for no limit."""
    max: int | None = Field(default=None, ge=0)
    """The most characters of a row that stays; null for no limit."""
    on: Part = "both"
    """What is measured: the ``prompt``, the ``response``, or ``both`` together."""

    @model_validator(mode="after")
    def _limits(self) -> Self:
        check_limits(self.min, self.max)
        return self

    def judge(self, candidate: Candidate) -> Verdict:
        """Keep a row whose characters lie within the limits."""
        count = len(candidate.text(self.on).strip())
        return within(count, self.min, self.max, f"{count} characters in {self.on}")
