"""The loops over n-grams of words, compiled by numba; the rules are those of `repetition`.

All of them stand in one file: numba keeps what it compiled until this very file changes.
"""

import numpy as np
from numba import njit

PRIME = np.uint64(0x100000001B3)
MIX_1, MIX_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
S33 = np.uint64(33)
EMPTY = np.int64(-1)


@njit(inline="always")
def _mix(value):  # type: ignore[no-untyped-def]
    value = (value ^ (value >> S33)) * MIX_1
    value = (value ^ (value >> S33)) * MIX_2
    return value ^ (value >> S33)


@njit(inline="always")
def _same(ids, one, other, n):  # type: ignore[no-untyped-def]
    for k in range(n):  # noqa: SIM110 (numba compiles no generators)
        if ids[one + k] != ids[other + k]:
            return False
    return True


@njit(cache=True)
def first_places(ids, n, first, table):  # type: ignore[no-untyped-def]
    """For every n-gram, where the same n-gram stands first; compared word by word, not by hash.

    Args:
        ids: a number for every word, equal for equal words, shape ``[words]``.
        n: words in an n-gram.
        first: filled; shape ``[words]``, of which ``words - n + 1`` are used.
        table: scratch, shape ``[a power of two of at least 2 x words]``.

    Returns:
        The number of n-grams.
    """
    count = len(ids) - n + 1
    mask = len(table) - 1
    table[:] = EMPTY
    for start in range(count):
        value = np.uint64(0)
        for k in range(n):
            value = _mix(value * PRIME + np.uint64(ids[start + k] + 1))
        slot = np.int64(value & np.uint64(mask))
        while table[slot] != EMPTY and not _same(ids, table[slot], start, n):
            slot = (slot + 1) & mask
        if table[slot] == EMPTY:
            table[slot] = start
        first[start] = table[slot]
    return count


@njit(cache=True)
def repeated_characters(ids, sizes, n):  # type: ignore[no-untyped-def]
    """Characters of words inside n-grams that stood before; each word counts once."""
    words = len(ids)
    size = 16
    while size < 2 * words:
        size *= 2
    table, first = np.empty(size, np.int64), np.empty(words, np.int64)
    count = first_places(ids, n, first, table)
    total = 0
    covered = 0
    for start in range(count):
        if first[start] != start:
            for k in range(max(start, covered), start + n):
                total += sizes[k]
            covered = start + n
    return total


@njit(cache=True)
def top_characters(ids, sizes, n):  # type: ignore[no-untyped-def]
    """How often the most frequent n-gram stands there, and the characters of its words.

    Of n-grams that are equally frequent the one with most characters counts. Each word counts
    once, also where the n-gram overlaps itself.

    Returns:
        The times and the characters; zeros where no n-gram stands twice.
    """
    words = len(ids)
    size = 16
    while size < 2 * words:
        size *= 2
    table, first = np.empty(size, np.int64), np.empty(words, np.int64)
    count = first_places(ids, n, first, table)
    times, total, covered = (
        np.zeros(words, np.int64),
        np.zeros(words, np.int64),
        np.zeros(words, np.int64),
    )
    for start in range(count):
        which = first[start]
        for k in range(max(start, covered[which]), start + n):
            total[which] += sizes[k]
        covered[which] = start + n
        times[which] += 1
    best_times, best_total = 0, 0
    for which in range(count):
        if times[which] < 2:
            continue
        if times[which] > best_times or (times[which] == best_times and total[which] > best_total):
            best_times, best_total = times[which], total[which]
    return best_times, best_total
