"""Rows by a regular expression.

RE2 runs it, through pyarrow: it takes time in proportion to the text whatever the expression, so
no row can stall a run. The price is that back-references and look-around do not exist.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from data_prep.filters.candidate import Candidate, Part, Verdict


def _readable(expression: str) -> str:
    try:
        pc.match_substring_regex(pa.scalar(""), expression)
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{expression!r} is no expression that RE2 can run ({str(error).splitlines()[0]}); "
            "it knows no back-references and no look-around"
        ) from None
    return expression


class PatternFilter(BaseModel):
    """Drops rows in which an expression is found, or those in which it is not."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["pattern"]
    pattern: Annotated[str, Field(min_length=1, max_length=10_000), AfterValidator(_readable)]
    """The expression, in RE2's language, found anywhere in the text: ``(?i)lorem ipsum``."""
    drop: Literal["matching", "others"] = "matching"
    """Which rows go: those in which it is found, or all others."""
    on: Part = "both"
    """Where it is looked for: the ``prompt``, the ``response``, or ``both`` together."""

    def judge(self, candidate: Candidate) -> Verdict:
        """Keep or drop a row by whether the expression is found."""
        return self.judge_many([candidate])[0]

    def judge_many(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        """The same of many rows: the expression, a list of words perhaps, is read but once."""
        texts = pa.array([each.text(self.on) for each in candidates], pa.large_string())
        drops = self.drop == "matching"
        detail = f"{self.pattern!r} {'found' if drops else 'not found'} in {self.on}"
        found = pc.match_substring_regex(texts, self.pattern).to_pylist()
        return [(False, detail) if each == drops else True for each in found]
