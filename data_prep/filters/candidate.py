"""What a filter is shown, and what it answers."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from data_prep.row_text import better_text, prompt_text
from data_prep.rows import Conversation, Row

Verdict = Literal[True] | tuple[Literal[False], str]
"""The row stays; or it goes, and why, with figures: ``12 tokens, min=20``."""
Part = Literal["prompt", "response", "both"]
"""What everybody but the assistant says, what the assistant says, or all of it."""


@dataclass(frozen=True)
class Candidate:
    """A row that may be filtered out."""

    row: Row
    tokens: int
    """Tokens it renders to; of a pair, the longer side."""
    perplexity: float | None = None
    """Under the model that the recipe names; None unless a filter asks for it."""

    @cached_property
    def prompt(self) -> str:
        """What everybody but the assistant says."""
        return prompt_text(self.row)

    @cached_property
    def response(self) -> str:
        """What the assistant says; of a preference, the better answer: the other may be bad."""
        return better_text(self.row)

    @cached_property
    def both(self) -> str:
        """What anybody says."""
        return f"{self.prompt}\n{self.response}"

    def text(self, on: Part) -> str:
        """The part of the row that a filter looks at."""
        return str(getattr(self, on))

    @cached_property
    def instruction(self) -> str:
        """What is asked first; of a row that is no conversation, its prompt."""
        if isinstance(self.row, Conversation):
            return next((m.content for m in self.row.messages if m.role == "user"), "")
        return self.prompt

    def turns(self, on: Part) -> tuple[str, ...]:
        """What is said in a part of the row, turn by turn, calls left out."""
        if not isinstance(self.row, Conversation):
            return (self.text(on),)
        return tuple(
            turn.content
            for turn in self.row.messages
            if on == "both" or (turn.role == "assistant") == (on == "response")
        )


class Filter(Protocol):
    """One rule. Its settings are its fields; ``kind`` names it in recipes and in the ledger."""

    @property
    def kind(self) -> str:
        """The rule's name."""

    def judge(self, candidate: Candidate) -> Verdict:
        """Say whether a row stays. Pure: the same row, the same answer."""
