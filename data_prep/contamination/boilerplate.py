"""What many texts of one evaluation set share: the template around its questions.

Every MMLU prompt begins with "The following are multiple choice questions (with answers) about";
a training row with the same words holds no MMLU question for that. So openings and endings that
many texts share are left out of the comparison, and runs of words that many share are no evidence.
A set of one or two texts shows no template: all of it is compared.
"""

import numpy as np
from numpy.typing import NDArray

from data_prep.contamination import kernels
from data_prep.contamination.words import Words

SHARE = 0.01
FEWEST = 3
"""As many different texts of a group, or this share of them where that is more, share a template:
three questions of eighty that begin alike, seventy-five of GSM8K's 7,473."""
SHORTEST = 5
"""Words from which a shared opening or ending is a template, not a way to begin a sentence."""
MOST = 0.5
"""Shared by so many, a shorter one is a template as well: "Answer:"."""


def limits(groups: NDArray[np.int64], distinct: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each group, how many different texts share what is boilerplate.

    Args:
        groups: the group of each text, numbered from 0.
        distinct: for each text the first one of its group that is equal to it.
    """
    different = np.bincount(groups[distinct == np.arange(len(groups))], minlength=groups.max() + 1)
    found: NDArray[np.int64] = np.maximum(FEWEST, np.ceil(SHARE * different)).astype(np.int64)
    return found


def cores(
    words: Words,
    groups: NDArray[np.int64],
    distinct: NDArray[np.int64],
    many: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find what is left of each text without the opening and the ending that many share.

    Figures do not count: "Question 17 of 100" opens like "Question 3 of 100".

    Args:
        words: of the texts.
        groups: the group of each text.
        distinct: as for ``limits``.
        many: as ``limits`` says.

    Returns:
        The first word of each core and the one behind its last; the same when nothing is left.
    """
    starts, stops = words.texts[:-1], words.texts[1:]
    first = distinct == np.arange(len(groups))
    half = MOST * np.bincount(groups[first], minlength=len(many))
    opening, ending = np.zeros(len(groups), np.int64), np.zeros(len(groups), np.int64)
    for shared, from_start in ((opening, True), (ending, False)):
        active = np.arange(len(groups))
        size = 1
        while len(active):
            active = active[stops[active] - starts[active] >= size]
            at = starts[active] if from_start else stops[active] - size
            # A pair of equal hashes in two groups is two templates.
            salt = groups[active].astype(np.uint64) * kernels.BASE
            keys = words.masked_runs(at, at + size) ^ salt
            _, inverse = np.unique(keys, return_inverse=True)
            texts = np.bincount(inverse, weights=first[active])[inverse]
            enough = texts >= many[groups[active]]
            # Figures beside the question may be its own.
            figure = words.numeric[at + size - 1 if from_start else at]
            template = (size >= SHORTEST) | (texts >= half[groups[active]])
            shared[active[enough & template & ~figure]] = size
            active = active[enough]
            size += 1
    begins = starts + opening
    return begins, np.maximum(begins, stops - ending)


def spread(
    runs: NDArray[np.uint64], groups: NDArray[np.int64], texts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Count, for each run of words, the different texts of its group that have it.

    Args:
        runs: hashes.
        groups: the group of each run's text.
        texts: the first text equal to the one that each run is from.
    """
    order = np.lexsort((texts, runs, groups))
    run, group, text = runs[order], groups[order], texts[order]
    new_run = np.ones(len(run), bool)
    new_run[1:] = (run[1:] != run[:-1]) | (group[1:] != group[:-1])
    new_text = new_run.copy()
    new_text[1:] |= text[1:] != text[:-1]
    number = np.cumsum(new_run) - 1
    counts = np.bincount(number, weights=new_text).astype(np.int64) if len(run) else number
    found = np.empty(len(run), np.int64)
    found[order] = counts[number]
    return found
