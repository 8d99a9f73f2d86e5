"""The loops over word hashes, compiled by numba.

All of them stand in one file, and none calls a compiled function of another: numba keeps what it
compiled until this very file changes.
"""

import numpy as np
from numba import njit

BASE = np.uint64(0x9E3779B97F4A7C15)
NUMBER = np.uint64(0xA0761D6478BD642F)
"""Stands for everything numeric."""
MIX_1, MIX_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
S33, S6, ONE = np.uint64(33), np.uint64(6), np.uint64(1)
SIX_BITS = np.uint64(63)


@njit(inline="always")
def _run(running, powers, start, stop):  # type: ignore[no-untyped-def]
    """Hash of the words from ``start`` to ``stop``; odd, as 0 marks free slots."""
    size = stop - start
    value = running[stop] - running[start] * powers[size] + np.uint64(size)
    value = (value ^ (value >> S33)) * MIX_1
    value = (value ^ (value >> S33)) * MIX_2
    return (value ^ (value >> S33)) | ONE


@njit(cache=True, nogil=True)
def running_hashes(words, numeric, plain, masked, powers):  # type: ignore[no-untyped-def]
    """Write running polynomial hashes of words, and the powers of their base."""
    plain[0], masked[0], powers[0] = np.uint64(0), np.uint64(0), ONE
    for i in range(len(words)):
        plain[i + 1] = plain[i] * BASE + words[i]
        masked[i + 1] = masked[i] * BASE + (NUMBER if numeric[i] else words[i])
        powers[i + 1] = powers[i] * BASE


@njit(cache=True, nogil=True)
def run_hashes(running, powers, starts, stops, found):  # type: ignore[no-untyped-def]
    """Write the hash of each run of words."""
    for i in range(len(starts)):
        found[i] = _run(running, powers, starts[i], stops[i])


@njit(cache=True)
def fill_slots(runs, firsts, slots, places, bits):  # type: ignore[no-untyped-def]
    """Put distinct hashes into an empty table, and into a filter that most absent ones fail.

    Args:
        runs: hashes, none 0.
        firsts: what to remember of each.
        slots: written; zeros, a power of two long, at least twice as many as there are hashes.
        places: written; ``firsts`` where their hashes stand.
        bits: written; zeros, a power of two long.
    """
    mask, wide = np.uint64(len(slots) - 1), np.uint64(len(bits) * 64 - 1)
    for i in range(len(runs)):
        place = (runs[i] >> ONE) & mask
        while slots[place]:
            place = (place + ONE) & mask
        slots[place], places[place] = runs[i], firsts[i]
        bit = (runs[i] >> S6) & wide
        bits[bit >> S6] |= ONE << (bit & SIX_BITS)


@njit(inline="always")
def _find(run, slots, places, bits):  # type: ignore[no-untyped-def]
    """What was remembered of a hash, or -1."""
    bit = (run >> S6) & np.uint64(len(bits) * 64 - 1)
    if not (bits[bit >> S6] >> (bit & SIX_BITS)) & ONE:
        return np.int64(-1)
    mask = np.uint64(len(slots) - 1)
    place = (run >> ONE) & mask
    while slots[place]:
        if slots[place] == run:
            return np.int64(places[place])
        place = (place + ONE) & mask
    return np.int64(-1)


@njit(cache=True, nogil=True)
def count_runs(  # type: ignore[no-untyped-def]
    plain, masked, powers, texts, sides, sizes, table, owners, runs, allowed, totals, least, found
):
    """Count the runs of words that training texts have in common with evaluation texts.

    Args:
        plain: running hashes of the training texts' words.
        masked: the same with figures masked.
        powers: of the base of both.
        texts: bounds of the training texts.
        sides: 1 for a prompt, 2 for a response, of each training text.
        sizes: lengths of runs in the table.
        table: slots, places and filter over the masked hashes of the evaluation texts' runs.
        owners: the evaluation text of each run; runs with equal masked hashes are neighbours,
            those of one text side by side, with a -1 behind each group.
        runs: plain hashes of the same runs.
        allowed: sides on which each evaluation text is looked for.
        totals: runs that each evaluation text has in the table.
        least: masked runs from which a pair is written.
        found: written: training text, evaluation text, masked runs in common, plain ones, the
            word of the first; shape ``[pairs, 5]``.

    Returns:
        How many pairs there are, more than ``found`` can hold at times.
    """
    slots, places, bits = table
    seen, same = np.full(len(owners), -1, np.int32), np.full(len(owners), -1, np.int32)
    count, equal = np.zeros(len(totals), np.int32), np.zeros(len(totals), np.int32)
    first, touched = np.empty(len(totals), np.int64), np.empty(len(totals), np.int32)
    pairs = 0
    for text in range(len(texts) - 1):
        start, stop, met = texts[text], texts[text + 1], 0
        for i in range(start, stop):
            for size in sizes:
                if i + size > stop:
                    continue
                place = _find(_run(masked, powers, i, i + size), slots, places, bits)
                if place < 0:
                    continue
                run = _run(plain, powers, i, i + size)
                while owners[place] >= 0:
                    owner, begin, known = owners[place], place, False
                    while owners[place] == owner:
                        known = known or runs[place] == run
                        place += 1
                    if not allowed[owner] & sides[text]:
                        continue
                    if not count[owner]:
                        touched[met], first[owner] = owner, i - start
                        met += 1
                    for k in range(begin, place):
                        # A run that the evaluation text has is not one of its others in disguise.
                        if known and runs[k] != run:
                            continue
                        if seen[k] != text:
                            seen[k] = text
                            count[owner] += 1
                        if known and same[k] != text:
                            same[k] = text
                            equal[owner] += 1
        for k in range(met):
            owner = touched[k]
            if count[owner] >= least[owner] or equal[owner] == totals[owner]:
                if pairs < len(found):
                    found[pairs, 0], found[pairs, 1] = text, owner
                    found[pairs, 2], found[pairs, 3] = count[owner], equal[owner]
                    found[pairs, 4] = first[owner]
                pairs += 1
            count[owner], equal[owner] = 0, 0
    return pairs


@njit(cache=True, nogil=True)
def vote(masked, powers, texts, sides, size, table, owners, allowed, needed, found):  # type: ignore[no-untyped-def]
    """Find pairs of texts with so many short runs of words in common that they may be alike.

    Args:
        masked: running hashes of the training texts' words, figures masked.
        powers: of their base.
        texts: bounds of the training texts.
        sides: as for ``count_runs``.
        size: length of a run.
        table: as for ``count_runs``.
        owners: as for ``count_runs``.
        allowed: as for ``count_runs``.
        needed: runs in common from which a pair is written, of each evaluation text.
        found: written: training text, evaluation text, first and last word that a run in common
            begins with; shape ``[pairs, 4]``.

    Returns:
        How many pairs there are, more than ``found`` can hold at times.
    """
    slots, places, bits = table
    seen = np.full(len(owners), -1, np.int32)
    count, touched = np.zeros(len(needed), np.int32), np.empty(len(needed), np.int32)
    first, last = np.empty(len(needed), np.int64), np.empty(len(needed), np.int64)
    pairs = 0
    for text in range(len(texts) - 1):
        start, met = texts[text], 0
        for i in range(start, texts[text + 1] - size + 1):
            place = _find(_run(masked, powers, i, i + size), slots, places, bits)
            if place < 0:
                continue
            while owners[place] >= 0:
                owner = owners[place]
                if allowed[owner] & sides[text]:
                    if not count[owner]:
                        touched[met], first[owner] = owner, i - start
                        met += 1
                    last[owner] = i - start
                    if seen[place] != text:
                        seen[place] = text
                        count[owner] += 1
                place += 1
        for k in range(met):
            owner = touched[k]
            if count[owner] >= needed[owner]:
                if pairs < len(found):
                    found[pairs, 0], found[pairs, 1] = text, owner
                    found[pairs, 2], found[pairs, 3] = first[owner], last[owner]
                pairs += 1
            count[owner] = 0
    return pairs


@njit(cache=True, nogil=True)
def find_whole(words, starts, stops, wanted, begins, ends, at):  # type: ignore[no-untyped-def]
    """Write where in ``words[start:stop]`` all of ``wanted[begin:end]`` stands, or -1."""
    for pair in range(len(starts)):
        size = ends[pair] - begins[pair]
        at[pair] = -1
        for i in range(starts[pair], stops[pair] - size + 1):
            k = 0
            while k < size and words[i + k] == wanted[begins[pair] + k]:
                k += 1
            if k == size:
                at[pair] = i - starts[pair]
                break


@njit(cache=True, nogil=True)
def best_stretch(words, starts, stops, wanted, begins, ends, longest, best, at):  # type: ignore[no-untyped-def]
    """Find the stretch of a text whose set of words is most like that of another text.

    Args:
        words: of training texts.
        starts: where to look, of each pair.
        stops: where to stop.
        wanted: words of evaluation texts.
        begins: where each pair's begin.
        ends: where they end.
        longest: the most words that the two parts of a pair have together.
        best: written: the Jaccard similarity of the most similar stretch of as many words.
        at: written: where it begins, counted from ``starts``.
    """
    room = 16
    while room < 2 * longest + 2:
        room *= 2
    mask = np.uint64(room - 1)
    table, stamps = np.empty(room, np.uint64), np.full(room, -1, np.int64)
    asked, inside = np.zeros(room, np.bool_), np.zeros(room, np.int32)
    where = np.empty(longest + 1, np.int64)
    for pair in range(len(starts)):
        begin, start = begins[pair], starts[pair]
        size, length = ends[pair] - begin, stops[pair] - start
        distinct = 0
        for i in range(size + length):
            word = wanted[begin + i] if i < size else words[start + i - size]
            place = word & mask
            while stamps[place] == pair and table[place] != word:
                place = (place + ONE) & mask
            if stamps[place] != pair:
                stamps[place], table[place] = pair, word
                asked[place], inside[place] = i < size, 0
                distinct += i < size
            if i >= size:
                where[i - size] = place
        best[pair], at[pair] = 0.0, 0
        shared, other = 0, 0
        for i in range(length):
            place = where[i]
            inside[place] += 1
            if inside[place] == 1:
                shared += asked[place]
                other += not asked[place]
            if i >= size:
                place = where[i - size]
                inside[place] -= 1
                if not inside[place]:
                    shared -= asked[place]
                    other -= not asked[place]
            if i >= size - 1 or i == length - 1:
                similarity = shared / (distinct + other)
                if similarity > best[pair]:
                    best[pair], at[pair] = similarity, max(0, i - size + 1)
