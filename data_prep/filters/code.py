"""Rows by how much of them is code or markup."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_prep.filters.candidate import Candidate, Part, Verdict
from data_prep.filters.limits import check_limits, within_share
from data_prep.filters.markup import code_characters


class CodeFilter(BaseModel):
    """Keeps rows by their share of code and markup; see `code_characters` for what counts.

    A text without a visible character has no share, and stays.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["code"]
    min: float | None = Field(default=None, ge=0, le=1)
    """The smallest share of a row that stays (0.2); null for no limit."""
    max: float | None = Field(default=None, ge=0, le=1)
    """The largest share of a row that stays (0.8); null for no limit."""
    on: Part = "both"
    """What is measured: the ``prompt``, the ``response``, or ``both`` together."""

    @model_validator(mode="after")
    def _limits(self) -> Self:
        check_limits(self.min, self.max)
        return self

    def judge(self, candidate: Candidate) -> Verdict:
        """Keep a row whose share of code lies within the limits."""
        code, total = code_characters(candidate.text(self.on))
        return within_share(code, total, self.min, self.max, f"of {self.on} is code or markup")
