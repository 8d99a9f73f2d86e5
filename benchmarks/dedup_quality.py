"""How good a list of removed rows is, given which rows are copies of which."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from labelled_rows import COPIES, LabelledRow

OTHERS = ("look-alike", "other sense", "twin")
"""Rows that look like the original in front of them, and are not its copies."""


@dataclass(frozen=True)
class Quality:
    """A removed row counts as right when a row of its cluster stays."""

    precision: float
    """Right removals of all removals."""
    recall: float
    """Right removals of the rows to remove."""
    f1: float
    f1_but_for_twins: float
    """The same on the rows that are no twins and have none."""
    clusters_wiped: int
    """Clusters of which no row stays."""
    found: dict[str, float]
    """By kind: of the originals with one copy, of that kind, those of which one of the two went."""
    lost: dict[str, float]
    """By kind: of the rows that are no copies, those that went, or cost their original, wholly."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def quality(rows: list[LabelledRow], removed: list[int]) -> Quality:
    """Judge removals.

    Args:
        rows: with their labels.
        removed: indices of rows, each once.
    """
    sizes = Counter(row.cluster for row in rows)
    gone = Counter(rows[index].cluster for index in removed)
    wiped = {cluster for cluster, size in sizes.items() if gone[cluster] == size}
    twins = {c for r in rows if r.kind == "twin" for c in (r.cluster - 1, r.cluster)}
    return Quality(
        *_scores(sizes, gone),
        f1_but_for_twins=_scores(
            Counter({c: size for c, size in sizes.items() if c not in twins}),
            Counter({c: count for c, count in gone.items() if c not in twins}),
        )[2],
        clusters_wiped=len(wiped),
        found=_found(rows, sizes, gone),
        lost=_shares(
            (r.kind, not wiped.isdisjoint((r.cluster - 1, r.cluster)))
            for r in rows
            if r.kind in OTHERS
        ),
    )


def _scores(sizes: Counter[int], gone: Counter[int]) -> tuple[float, float, float]:
    right = sum(min(count, sizes[cluster] - 1) for cluster, count in gone.items())
    precision = right / max(1, gone.total())
    recall = right / max(1, sizes.total() - len(sizes))
    return precision, recall, 2 * precision * recall / max(1e-9, precision + recall)


def _found(rows: list[LabelledRow], sizes: Counter[int], gone: Counter[int]) -> dict[str, float]:
    return _shares(
        (row.kind, gone[row.cluster] == 1)
        for row in rows
        if row.kind in (*COPIES, "paraphrase") and sizes[row.cluster] == 2
    )


def _shares(marks: Iterable[tuple[str, bool]]) -> dict[str, float]:
    counts: dict[str, list[int]] = {}
    for kind, mark in marks:
        pair = counts.setdefault(kind, [0, 0])
        pair[0] += mark
        pair[1] += 1
    return {kind: marked / total for kind, (marked, total) in sorted(counts.items())}
