"""What a filter is shown, and what it answers."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from data_prep.row_text import prompt_text, response_text
from data_prep.rows import Row

Verdict = Literal[True] | tuple[Literal[False], str]
"""The row stays; or it goes, and why, with figures: ``12 tokens, min=20``."""


@dataclass(frozen=True)
class Candidate:
    """A row that may be filtered out."""

    row: Row
    tokens: int
    """Tokens it renders to."""
    perplexity: float | None = None
    """Under the model that the recipe names; None unless a filter asks for it."""

    @cached_property
    def prompt(self) -> str:
        """What everybody but the assistant says."""
        return prompt_text(self.row)

    @cached_property
    def response(self) -> str:
        """What the assistant says."""
        return response_text(self.row)

    @cached_property
    def both(self) -> str:
        """What anybody says."""
        return f"{self.prompt}\n{self.response}"

    def text(self, on: Literal["prompt", "response", "both"]) -> str:
        """The part of the row that a filter looks at."""
        return str(getattr(self, on))


class Filter(Protocol):
    """One rule. Its settings are its fields; ``kind`` names it in recipes and in the ledger."""

    @property
    def kind(self) -> str:
        """The rule's name."""

    def judge(self, candidate: Candidate) -> Verdict:
        """Say whether a row stays. Pure: the same row, the same answer."""
