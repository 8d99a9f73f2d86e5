"""Sources in the shares that were asked for, measured on what is trained on.

Weights are applied last, to rows that filters and deduplication left: a source that is mostly
duplicates does not take more of the training than its weight says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from data_prep.errors import RowsRefused
from data_prep.splits import mixed

MOST_REPEATS = 1000
"""More often than this, no row is worth training on: a weight was mistaken."""


class MixtureConfig(BaseModel):
    """How the sources' weights are understood."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: Literal["tokens", "rows"] = "tokens"
    """What the weights are shares of."""
    until: Literal["first", "all"] = "first"
    """``first``: no row is used twice, so the scarcest source limits the rest. ``all``: every row
    of every source is used, and those of scarcer sources are repeated."""


@dataclass(frozen=True)
class Mixture:
    """What is trained on, and what is not."""

    rows: NDArray[np.int64]
    """Row numbers in their order; a repeated row stands there as often as it is trained on."""
    left_out: NDArray[np.int64]


class Share(BaseModel):
    """What one source is of everything that is trained on."""

    model_config = ConfigDict(frozen=True)

    source: str
    by: Literal["tokens", "rows"]
    """What the shares are measured in."""
    wanted: float
    """Its weight, divided by the sum of all."""
    realised: float
    rows: int
    """Rows of it that are trained on, each counted once."""
    repeats: int
    """How often one of these stands there again."""
    tokens: int
    """Tokens trained on, those of repeats too."""


def wanted_shares(weights: Sequence[float]) -> NDArray[np.float64]:
    """Weights as shares of 1."""
    # Of weights near a float's limits, neither the sum is infinite nor any share 0.
    shares = np.maximum(np.asarray(weights) / max(weights), 1e-200)
    return np.asarray(shares / shares.sum(), np.float64)


def realised(
    by: Literal["tokens", "rows"],
    weights: Sequence[float],
    names: Sequence[str],
    source: NDArray[np.int64],
    times: NDArray[np.int64],
    tokens: NDArray[np.int64],
) -> list[Share]:
    """Measure what every source is of everything that is trained on.

    Args:
        by: what shares are measured in.
        weights: of every source.
        names: of every source.
        source: the source of each row that is trained on, shape ``[rows]``.
        times: how often each stands there.
        tokens: the tokens of all its copies.
    """
    count = len(names)
    rows = np.bincount(source, minlength=count)
    all_rows = np.bincount(source, times, count)
    all_tokens = np.bincount(source, tokens, count)
    sizes = all_tokens if by == "tokens" else all_rows
    wanted = wanted_shares(weights)
    return [
        Share(
            source=name,
            by=by,
            wanted=round(float(wanted[i]), 6),
            realised=round(float(sizes[i] / max(1, sizes.sum())), 6),
            rows=int(rows[i]),
            repeats=int(all_rows[i]) - int(rows[i]),
            tokens=int(all_tokens[i]),
        )
        for i, name in enumerate(names)
    ]


def mix(
    config: MixtureConfig,
    weights: Sequence[float],
    rows: NDArray[np.int64],
    source: NDArray[np.int64],
    tokens: NDArray[np.int64],
    keys: NDArray[np.uint64],
    seed: int,
) -> Mixture:
    """Choose rows so that every source has its share, up to one row, and at least one row.

    Which rows of a source are taken depends on what they say and the seed, not on their order.

    Args:
        config: rows or tokens, with or without repetition.
        weights: of every source; shares are these divided by their sum.
        rows: numbers of the rows there are, ascending.
        source: the source of each, shape ``[rows]``.
        tokens: the tokens of each that are trained on.
        keys: a hash of what each says.
        seed: another seed, other rows.

    Raises:
        RowsRefused: rows would be repeated more than `MOST_REPEATS` times.
    """
    sizes = tokens if config.by == "tokens" else np.ones(len(rows), np.int64)
    totals = np.bincount(source, sizes, len(weights))
    shares = wanted_shares(weights)
    present = totals > 0
    scales = totals[present] / shares[present]
    if not len(scales):
        return Mixture(rows, rows[:0])
    scale = scales.min() if config.until == "first" else scales.max()
    _refuse_many_repeats(scale / scales, np.flatnonzero(present))
    chosen: list[NDArray[np.int64]] = []
    for each in np.flatnonzero(present).tolist():
        own = np.flatnonzero(source == each)
        own = own[np.lexsort((own, mixed(keys[own], seed)))]
        whole, rest = divmod(float(shares[each] * scale), float(totals[each]))
        if rest > totals[each] * (1 - 1e-9):  # all of it, but for rounding
            whole, rest = whole + 1, 0.0
        some = int(np.searchsorted(np.cumsum(sizes[own]), rest * (1 + 1e-9), "right"))
        chosen += [own] * int(whole) + [own[: max(some, whole == 0)]]
    places = np.sort(np.concatenate(chosen), kind="stable")
    return Mixture(rows[places], np.setdiff1d(rows, rows[places]))


def _refuse_many_repeats(repeats: NDArray[np.float64], sources: NDArray[np.int64]) -> None:
    most = int(np.argmax(repeats))
    if not repeats[most] <= MOST_REPEATS:
        raise RowsRefused(
            f"sources: by these weights, every row of source number {sources[most] + 1} would be "
            f"repeated more than {MOST_REPEATS} times until all rows of the others are used. "
            "Lower its weight, or set mixture.until=first."
        )
