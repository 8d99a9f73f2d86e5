"""Tables of the runs of words that evaluation texts have."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_prep.contamination import kernels
from data_prep.contamination.boilerplate import spread
from data_prep.contamination.words import Words

SEED = 3
"""Words in a run that makes a pair of texts a candidate for being alike."""
RARE = 50
"""Such a run that more evaluation texts have makes no candidates."""
ENOUGH = 8
"""Unless a text has fewer rarer ones than this."""


@dataclass(frozen=True)
class RunTable:
    """Where runs of words stand in evaluation texts, by their hashes with figures masked."""

    slots: NDArray[np.uint64]
    places: NDArray[np.int64]
    bits: NDArray[np.uint64]
    owners: NDArray[np.int32]
    """The evaluation text of each run, with a -1 behind each group of equal ones."""
    runs: NDArray[np.uint64]
    """Hashes of the same runs with their figures."""
    totals: NDArray[np.int32]
    """Runs that each evaluation text has here."""

    @property
    def table(self) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint64]]:
        """As kernels take it."""
        return self.slots, self.places, self.bits


@dataclass(frozen=True)
class ComparedRuns:
    """What is compared of each evaluation text."""

    begins: NDArray[np.int64]
    """Its first word."""
    ends: NDArray[np.int64]
    """The word behind its last."""
    sizes: NDArray[np.int64]
    """Words in a run; 0 when the text is too short for runs."""
    whole_only: NDArray[np.bool_]
    """The text is template nearly all over: only the whole of it counts."""
    grams: RunTable
    """Its runs that are evidence."""


def positions(
    begins: NDArray[np.int64], ends: NDArray[np.int64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every run of ``sizes`` words: the text it is from, and where it begins."""
    counts = np.where(sizes > 0, ends - begins - sizes + 1, 0)
    counts = np.maximum(counts, 0)
    owners = np.repeat(np.arange(len(counts)), counts)
    offsets = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    return owners, begins[owners] + offsets


def gram_table(
    words: Words,
    at: tuple[NDArray[np.int64], NDArray[np.int64]],
    sizes: NDArray[np.int64],
    groups: NDArray[np.int64],
    distinct: NDArray[np.int64],
    many: NDArray[np.int64],
) -> tuple[RunTable, NDArray[np.bool_]]:
    """The runs that are evidence; of a text that has none, the rarest, so that it can be found.

    Args:
        words: of the texts.
        at: every run, as ``positions`` answers.
        sizes: words in a run of each text.
        groups: the group of each text.
        distinct: for each text the first one of its group that is equal to it.
        many: for each group, how many texts make a run boilerplate.

    Returns:
        The runs, and which texts have none that are evidence.
    """
    owners, starts = at
    runs = words.masked_runs(starts, starts + sizes[owners])
    texts = spread(runs, groups[owners], distinct[owners])
    keep = texts < many[groups[owners]]
    bare = np.bincount(owners, weights=keep, minlength=len(sizes)) == 0
    order = np.lexsort((starts, texts, owners))
    rarest = order[np.unique(owners[order], return_index=True)[1]]
    keep[rarest[bare[owners[rarest]]]] = True
    return _table(words, owners[keep], starts[keep], sizes), bare


def seed_table(
    words: Words,
    at: tuple[NDArray[np.int64], NDArray[np.int64]],
    sizes: NDArray[np.int64],
) -> RunTable:
    """The runs that few evaluation texts have, and at least some of every text.

    Args:
        words: of the texts.
        at: every run, as ``positions`` answers.
        sizes: words in a run of each text.
    """
    owners, starts = at
    runs = words.masked_runs(starts, starts + sizes[owners])
    texts = spread(runs, np.zeros(len(runs), np.int64), owners)
    order = np.lexsort((starts, texts, owners))
    counts = np.bincount(owners, minlength=len(sizes))
    firsts = np.cumsum(counts) - counts
    rank = np.empty(len(owners), np.int64)
    rank[order] = np.arange(len(owners)) - firsts[owners[order]]
    keep = (texts <= RARE) | (rank < ENOUGH)
    return _table(words, owners[keep], starts[keep], sizes)


def _table(
    words: Words, owners: NDArray[np.int64], at: NDArray[np.int64], sizes: NDArray[np.int64]
) -> RunTable:
    masked = words.masked_runs(at, at + sizes[owners])
    plain = words.runs(at, at + sizes[owners])
    order = np.lexsort((at, owners, masked))
    distinct, firsts = np.unique(masked[order], return_index=True)
    ends = np.append(firsts[1:], len(order))
    slots = np.zeros(_power_of_two(2 * len(distinct)), np.uint64)
    places, bits = np.zeros(len(slots), np.int64), np.zeros(len(slots) // 8, np.uint64)
    kernels.fill_slots(distinct, firsts + np.arange(len(firsts)), slots, places, bits)
    return RunTable(
        slots=slots,
        places=places,
        bits=bits,
        owners=np.insert(owners[order].astype(np.int32), ends, -1),
        runs=np.insert(plain[order], ends, 0),
        totals=np.bincount(owners, minlength=len(sizes)).astype(np.int32),
    )


def _power_of_two(least: int) -> int:
    return 1 << max(4, (least - 1).bit_length())
