"""Where every row and every token went.

The law: rows in = kept whole + truncated + split + dropped, and
tokens in = tokens kept + tokens cut off + tokens dropped. A row that was dropped before it could
be rendered has no tokens yet and counts as a row only.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict

from data_prep.errors import DataError

FILTERED = "filter "
"""How the reason of a row begins that a filter dropped; the filter's kind follows."""


class Dropped(BaseModel):
    """One row that is not in the output, and why."""

    model_config = ConfigDict(frozen=True)

    where: str
    reason: str
    detail: str = ""
    tokens: int = 0
    """Tokens it would have had; 0 when it was dropped before rendering."""
    witness: str = ""
    """For duplicates: the surviving row that it repeats. For contradictions: the first row that
    says the opposite, which is dropped as well."""


class Count(BaseModel):
    """Rows and their tokens."""

    model_config = ConfigDict(frozen=True)

    rows: int
    tokens: int


class Ledger(BaseModel):
    """The account of one preparation."""

    rows_in: int = 0
    rows_kept: int = 0
    rows_truncated: int = 0
    """Kept, but cut to ``max_tokens``; not counted in ``rows_kept``."""
    rows_split: int = 0
    """Kept, in several pieces; not counted in ``rows_kept``."""
    pieces: int = 0
    """Pieces of split rows that are trained on."""
    pieces_left_out: int = 0
    """Pieces of split rows in which nothing could be learned; their tokens are cut off."""
    rows_merged: int = 0
    """Rows with repeated roles that ``roles: merge`` joined; they are counted above as well."""
    rows_escaped: int = 0
    """Rows in which ``markers: escape`` changed what would have become a turn."""
    personal_masked: dict[str, int] = {}
    """Personal data that was masked, by kind."""
    tokens_in: int = 0
    tokens_kept: int = 0
    tokens_cut: int = 0
    """Cut off the end of truncated rows, and in pieces that were left out."""
    tokens_supervised: int = 0
    """Of ``tokens_kept``, those that carry loss."""
    sources: dict[str, int] = {}
    """Rows read from each source."""
    sources_kept: dict[str, int] = {}
    """Rows of each that are in the output."""
    formats: dict[str, str] = {}
    """The format each source was read with."""
    formats_because: dict[str, str] = {}
    """Why, where a source's format was told from its fields."""
    fields_unused: dict[str, int] = {}
    """Fields of rows that nothing is made of, and in how many rows: ``id``, ``messages[].name``."""
    dropped: dict[str, Count] = {}
    """Rows that are not in the output, by reason, most frequent first."""
    steps: dict[str, Count] = {}
    """What was left after each step, in order."""

    @property
    def rows_dropped(self) -> int:
        """Rows that are not in the output."""
        return sum(count.rows for count in self.dropped.values())

    @property
    def tokens_dropped(self) -> int:
        """Tokens of rows that were rendered and then dropped."""
        return sum(count.tokens for count in self.dropped.values())

    def check(self) -> None:
        """Hold the law.

        Raises:
            DataError: the account does not balance: a defect of llmkit, never of the data.
        """
        rows = self.rows_kept + self.rows_truncated + self.rows_split + self.rows_dropped
        tokens = self.tokens_kept + self.tokens_cut + self.tokens_dropped
        if rows != self.rows_in or tokens != self.tokens_in:
            raise DataError(
                f"the ledger does not balance: {self.rows_in} rows in, {rows} accounted for; "
                f"{self.tokens_in} tokens in, {tokens} accounted for. Please report this as a bug."
            )

    def summary(self) -> dict[str, Any]:
        """Figures for manifests and reports."""
        return self.model_dump() | {
            "rows_dropped": self.rows_dropped,
            "tokens_dropped": self.tokens_dropped,
            "dropped": {reason: count.rows for reason, count in self.dropped.items()},
            "dropped_tokens": {reason: count.tokens for reason, count in self.dropped.items()},
        }
