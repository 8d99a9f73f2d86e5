"""Rows by how well a language model expects them."""

from math import isnan
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_prep.errors import DataError
from data_prep.filters.candidate import Candidate, Part, Verdict
from data_prep.filters.limits import check_limits, within


class PerplexityFilter(BaseModel):
    """Keeps rows whose perplexity under a model lies within limits.

    Gibberish and markup debris score high, boilerplate that a model knows by heart scores low, and
    texts of a word or two score anything.
    Nothing is scored here: whoever runs the filters scores ``candidate.text(filter.on)`` with
    ``model`` and hands the figure in with the candidate. A text too short to score (NaN) stays:
    nothing is known against it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["perplexity"]
    min: float | None = Field(default=None, ge=1)
    """The lowest perplexity of a row that stays; null for no limit."""
    max: float | None = Field(default=None, ge=1)
    """The highest perplexity of a row that stays; null for no limit."""
    model: str | None = Field(default=None, min_length=1)
    """A name from `llmkit models list`, a local folder, or a hub id; null for the base model."""
    on: Part = "both"
    """What is scored: the ``prompt``, the ``response``, or ``both`` together."""
    max_tokens: int = Field(default=1024, ge=2)
    """Tokens that are scored, from the beginning of the text."""

    @model_validator(mode="after")
    def _limits(self) -> Self:
        check_limits(self.min, self.max)
        return self

    def judge(self, candidate: Candidate) -> Verdict:
        """Keep a row whose perplexity lies within the limits.

        Raises:
            DataError: the candidate was never scored.
        """
        found = candidate.perplexity
        if found is None:
            raise DataError(
                "filters: the perplexity filter was given a row that no model has scored. "
                "Score rows before they are filtered, or leave the filter out."
            )
        if isnan(found):
            return True
        return within(found, self.min, self.max, f"perplexity {found:.5g}")
