"""What became of every row: whether it stays, and if not, why and on whose word."""

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from data_prep.ledger import Count, Dropped
from data_prep.shards import Rows

BLOCK = 1 << 15
"""Rows whose places are in memory at once: their witnesses may be in any shard, and each shard is
opened once a block."""


IN_VALIDATION = "also in validation"
"""Why a row of training goes that the validation's own source has, too."""


class Decisions:
    """A few bytes a row, however long the rows are."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.tokens: NDArray[np.int64] = rows.array("tokens").astype(np.int64)
        self.source: NDArray[np.int64] = rows.array("source").astype(np.int64)
        self._names = [""]
        self._reason = np.zeros(len(rows), np.int16)
        self._witness = np.full(len(rows), -1, np.int64)
        self._details: dict[int, str] = {}
        self._common: dict[int, str] = {}
        self.steps: dict[str, Count] = {}
        for start, table in rows.each("reason"):
            for row, reason in enumerate(table.column(0).to_pylist(), start):
                if reason is not None:
                    self._reason[row] = self._code(reason)

    def _code(self, reason: str) -> int:
        if reason not in self._names:
            self._names.append(reason)
        return self._names.index(reason)

    def left(self) -> NDArray[np.int64]:
        """The rows that stay so far, ascending."""
        return np.flatnonzero(self._reason == 0)

    def drop(
        self,
        rows: NDArray[np.int64],
        reason: str,
        witness: NDArray[np.int64] | None = None,
        details: Mapping[int, str] | None = None,
        detail: str = "",
    ) -> None:
        """Take rows out.

        Args:
            rows: which.
            reason: short and without figures.
            witness: for each the row that vouches for it.
            details: what was found in some of them.
            detail: what is to be said of all others.
        """
        self._reason[rows] = self._code(reason)
        if detail:
            self._common[self._code(reason)] = detail
        if witness is not None:
            self._witness[rows] = witness
        self._details |= details or {}

    def note(self, step: str) -> None:
        """Remember how much is left after a step."""
        left = self.left()
        self.steps[step] = Count(rows=len(left), tokens=int(self.tokens[left].sum()))

    def dropped_for(self, reason: str) -> NDArray[np.int64]:
        """The rows that were dropped for a reason, ascending."""
        return np.flatnonzero(self._reason == self._names.index(reason))

    def details(self, rows: NDArray[np.int64]) -> list[str]:
        """What exactly was found in each of some dropped rows."""
        table = self._rows.take(rows, "detail").column(0).to_pylist()
        return [self._detail(row, detail) for row, detail in zip(rows.tolist(), table, strict=True)]

    def _detail(self, row: int, own: str | None) -> str:
        return self._details.get(row) or own or self._common.get(int(self._reason[row]), "")

    def counts(self) -> dict[str, Count]:
        """Dropped rows and their tokens by reason, most frequent first, then by name."""
        rows = np.bincount(self._reason, minlength=len(self._names))
        tokens = np.bincount(self._reason, self.tokens, len(self._names))
        found = {
            name: Count(rows=int(rows[code]), tokens=int(tokens[code]))
            for code, name in enumerate(self._names)
            if code and rows[code]
        }
        return dict(sorted(found.items(), key=lambda entry: (-entry[1].rows, entry[0])))

    def dropped(self) -> Iterator[Dropped]:
        """Every row that is not in the output, in order."""
        gone = np.flatnonzero(self._reason)
        for start in range(0, len(gone), BLOCK):
            rows = gone[start : start + BLOCK]
            witness = self._witness[rows]
            places = iter(self._rows.take(witness[witness >= 0], "where").column(0).to_pylist())
            where = self._rows.take(rows, "where").column(0).to_pylist()
            details = self.details(rows)
            for row, place, detail, named in zip(
                rows.tolist(), where, details, (witness >= 0).tolist(), strict=True
            ):
                yield Dropped(
                    where=place,
                    reason=self._names[self._reason[row]],
                    detail=detail,
                    tokens=int(self.tokens[row]),
                    witness=next(places) if named else "",
                )


def examples(dropped: Iterator[Dropped], reasons: Mapping[str, int], most: int = 10) -> list[str]:
    """Lines that show people what was dropped, at most ``most``, some of every reason.

    Args:
        dropped: rows in order; read only as far as needed.
        reasons: which to show, and how many rows there are of each.
        most: lines.
    """
    share = max(1, most // max(1, len(reasons)))
    wanted = {reason: min(share, count) for reason, count in reasons.items()}
    seen: Counter[str] = Counter()
    lines: list[str] = []
    for row in dropped:
        if len(lines) == most or all(seen[reason] >= wanted[reason] for reason in wanted):
            break
        if row.reason in wanted and seen[row.reason] < wanted[row.reason]:
            seen[row.reason] += 1
            what = f"{row.reason}: {row.detail}" if row.detail else row.reason
            lines.append(f"{row.where}: {what}")
    return lines
