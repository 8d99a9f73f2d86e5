"""Where every row and every token went.

The law: rows in = kept whole + truncated + dropped, and
tokens in = tokens kept + tokens cut off + tokens dropped. A row that was dropped before it could
be rendered has no tokens yet and counts as a row only.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict

from data_prep.errors import DataError


class Dropped(BaseModel):
    """One row that is not in the output, and why."""

    model_config = ConfigDict(frozen=True)

    where: str
    reason: str
    detail: str = ""
    tokens: int = 0
    """Tokens it would have had; 0 when it was dropped before rendering."""
    witness: str = ""
    """For duplicates: the surviving row that it repeats."""


class Ledger(BaseModel):
    """The account of one preparation."""

    rows_in: int = 0
    rows_kept: int = 0
    rows_truncated: int = 0
    """Kept, but cut to ``max_tokens``; not counted in ``rows_kept``."""
    rows_merged: int = 0
    """Rows with repeated roles that ``roles: merge`` joined; they are counted above as well."""
    tokens_in: int = 0
    tokens_kept: int = 0
    tokens_cut: int = 0
    """Cut off the end of truncated rows."""
    tokens_supervised: int = 0
    """Of ``tokens_kept``, those that carry loss."""
    sources: dict[str, int] = {}
    """Rows read from each source."""
    formats: dict[str, str] = {}
    """The format each source was read with."""
    fields_unused: dict[str, int] = {}
    """Fields of rows that nothing is made of, and in how many rows: ``id``, ``messages[].name``."""
    dropped: list[Dropped] = []

    @property
    def reasons(self) -> dict[str, int]:
        """Dropped rows counted by reason, most frequent first."""
        return dict(Counter(row.reason for row in self.dropped).most_common())

    @property
    def tokens_dropped(self) -> int:
        """Tokens of rows that were rendered and then dropped."""
        return sum(row.tokens for row in self.dropped)

    def drop(self, where: str, reason: str, detail: str = "", tokens: int = 0) -> None:
        """Account for a row that is not in the output."""
        self.dropped.append(Dropped(where=where, reason=reason, detail=detail, tokens=tokens))

    def keep(self, tokens: int, cut: int, supervised: int) -> None:
        """Account for a row in the output: its tokens there, those cut off, those with loss."""
        self.rows_truncated += bool(cut)
        self.rows_kept += not cut
        self.tokens_kept += tokens
        self.tokens_cut += cut
        self.tokens_supervised += supervised

    def check(self) -> None:
        """Hold the law.

        Raises:
            DataError: the account does not balance: a defect of llmkit, never of the data.
        """
        rows = self.rows_kept + self.rows_truncated + len(self.dropped)
        tokens = self.tokens_kept + self.tokens_cut + self.tokens_dropped
        if rows != self.rows_in or tokens != self.tokens_in:
            raise DataError(
                f"the ledger does not balance: {self.rows_in} rows in, {rows} accounted for; "
                f"{self.tokens_in} tokens in, {tokens} accounted for. Please report this as a bug."
            )

    def summary(self) -> dict[str, Any]:
        """Figures for manifests and reports, without the list of rows."""
        plain = self.model_dump(exclude={"dropped"})
        return plain | {
            "rows_dropped": len(self.dropped),
            "tokens_dropped": self.tokens_dropped,
            "dropped": self.reasons,
        }


def examples(dropped: Iterable[Dropped], most: int = 10) -> list[str]:
    """Lines that show people what was dropped, at most ``most``, some of every reason."""
    seen: Counter[str] = Counter()
    rows = list(dropped)
    share = max(1, most // max(1, len({row.reason for row in rows})))
    lines = []
    for row in rows:
        seen[row.reason] += 1
        if seen[row.reason] <= share:
            what = f"{row.reason}: {row.detail}" if row.detail else row.reason
            lines.append(f"{row.where}: {what}")
    return lines[:most]
