"""The loops over bytes and hashes, compiled by numba.

All of them stand in one file: numba keeps what it compiled until this very file changes, and
would not notice a change in another file that a function here calls.

A word is a run of letters, digits and underscores. Scripts that are written without spaces (Han,
Kana, Thai) give a word for every two neighbouring characters. Words that carry the sense of a sum
are marked numeric: numbers, and the operators between them. `data_prep.dedup.certificates` states
the same rules once more, in a different way, for auditing.
"""

import numpy as np
from numba import njit

FNV_OFFSET, FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
MIX_1, MIX_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
S58, S33, S32, S18, S12, S6 = (np.uint64(bits) for bits in (58, 33, 32, 18, 12, 6))
ONE = np.uint64(1)

SEPARATOR, LETTER, PAIRED, OPERATOR, HYPHEN = range(5)

EMPTY = np.uint32(0xFFFFFFFF)
MIX = np.uint64(0x9E3779B97F4A7C15)
SCRAMBLE = np.uint32(0x85EBCA6B)
FEWEST = 8
"""A text with fewer words than this beside the common ones is sketched with all of its words."""
FIRST = 32
"""Of more texts with a band in common, each is compared with the first so many and a neighbour."""
FIGURE, SIGN, NAME = np.uint8(1), np.uint8(2), np.uint8(3)
"""What makes a word numeric: it begins with a digit, is an operator, or has a digit behind letters
("mp3"), which is as much a name as a number."""


@njit(inline="always")
def mix(value):  # type: ignore[no-untyped-def]
    """Spread the bits of 64 (the finaliser of MurmurHash3)."""
    value = (value ^ (value >> S33)) * MIX_1
    value = (value ^ (value >> S33)) * MIX_2
    return value ^ (value >> S33)


@njit(inline="always")
def _kind(c):  # type: ignore[no-untyped-def]
    if c < 128:
        if 97 <= c <= 122 or 48 <= c <= 57 or c == 95:
            return LETTER
        if c == 45:
            return HYPHEN
        # % & * + / < = > ^ | ~
        if c in (37, 38, 42, 43, 47, 60, 61, 62, 94, 124, 126):
            return OPERATOR
        return SEPARATOR
    # Plus-minus, times, division, and the block of mathematical operators.
    if c == 0xB1 or c == 0xD7 or c == 0xF7 or 0x2200 <= c <= 0x22FF:
        return OPERATOR
    if c < 0xC0 or 0x2000 <= c <= 0x206F or 0x3000 <= c <= 0x303F:
        return SEPARATOR
    if 0x0E00 <= c <= 0x0E7F or 0x3040 <= c <= 0x30FF or 0x3400 <= c <= 0x9FFF:
        return PAIRED
    return PAIRED if 0x20000 <= c <= 0x3FFFF else LETTER


@njit(cache=True)
def hash_words(text, start, end, words, numeric):  # type: ignore[no-untyped-def]
    """Hash the words of ``text[start:end]``, in order.

    Args:
        text: UTF-8 bytes of normalised texts.
        start: where this one begins.
        end: where it ends.
        words: written; at least ``end - start`` long.
        numeric: written; `FIGURE`, `SIGN`, `NAME`, or 0; of bools, True for the three.

    Returns:
        How many there are.
    """
    count = 0
    i = start
    inside, digit = False, np.uint8(0)
    value, before, last = FNV_OFFSET, np.uint64(0), np.uint64(0)
    while i < end:
        byte = np.uint64(text[i])
        if byte < 0x80:
            c, i = byte, i + 1
        elif byte < 0xE0:
            c, i = ((byte & np.uint64(0x1F)) << S6) | np.uint64(text[i + 1] & 0x3F), i + 2
        elif byte < 0xF0:
            c = ((byte & np.uint64(0x0F)) << S12) | (np.uint64(text[i + 1] & 0x3F) << S6)
            c, i = c | np.uint64(text[i + 2] & 0x3F), i + 3
        else:
            c = ((byte & np.uint64(0x07)) << S18) | (np.uint64(text[i + 1] & 0x3F) << S12)
            c |= (np.uint64(text[i + 2] & 0x3F) << S6) | np.uint64(text[i + 3] & 0x3F)
            i += 4
        kind = _kind(c)
        if kind == HYPHEN:  # a minus beside a digit or between spaces; else it joins words
            after = text[i] if i < end else np.uint8(0)
            minus = 48 <= after <= 57 or 48 <= last <= 57 or (after == 32 and last == 32)
            kind = OPERATOR if minus else SEPARATOR
        last = c
        if kind == LETTER:
            if not inside:
                inside, digit, value = True, np.uint8(0), FNV_OFFSET
            if 48 <= c <= 57 and not digit:
                digit = FIGURE if value == FNV_OFFSET else NAME
            value = (value ^ c) * FNV_PRIME
        elif inside:
            words[count], numeric[count] = mix(value), digit
            count, inside = count + 1, False
        if kind == PAIRED:
            if before:
                words[count], numeric[count] = mix((before << S32) | c), np.uint8(0)
                count += 1
            before = c
        else:
            before = np.uint64(0)
        if kind == OPERATOR:
            words[count], numeric[count] = mix(c), SIGN
            count += 1
    if inside:
        words[count], numeric[count] = mix(value), digit
        count += 1
    return count


@njit(cache=True, nogil=True)
def hash_all(text, bounds, words, numeric, ends):  # type: ignore[no-untyped-def]
    """Hash the words of every ``text[bounds[i]:bounds[i + 1]]``, one after the other.

    Args:
        text: UTF-8 bytes of normalised texts.
        bounds: ascending.
        words: written; a word more than there are bytes.
        numeric: written, as long.
        ends: written; words of part ``i`` are those from ``ends[i]`` to ``ends[i + 1]``.
    """
    ends[0] = 0
    for i in range(len(bounds) - 1):
        rest, marks = words[ends[i] :], numeric[ends[i] :]
        ends[i + 1] = ends[i] + hash_words(text, bounds[i], bounds[i + 1], rest, marks)


@njit(cache=True)
def join_grams(words, count, size):  # type: ignore[no-untyped-def]
    """Turn ``count`` words into runs of ``size`` neighbouring ones, in place; a short text is one.

    Returns:
        How many runs there are.
    """
    if size <= 1 or count == 0:
        return count
    runs = max(1, count - size + 1)
    for i in range(runs):
        value = words[i]
        for j in range(i + 1, min(i + size, count)):
            value = mix(value * FNV_PRIME ^ words[j])
        words[i] = value
    return runs


@njit(cache=True)
def keep_unique(words, numeric, count, table, stamps, stamp):  # type: ignore[no-untyped-def]
    """Keep the first of equal words, in place.

    Args:
        words: hashes; the first ``count`` are looked at.
        numeric: moved along with them.
        count: how many.
        table: scratch, a power of two long and at least twice ``count``.
        stamps: scratch of the same length; entries not equal to ``stamp`` count as free.
        stamp: a number not used with these scratch arrays before. Afterwards the table holds
            the set of the words under this stamp.

    Returns:
        How many are left.
    """
    mask = np.uint64(len(table) - 1)
    kept = 0
    for i in range(count):
        place = words[i] & mask
        while stamps[place] == stamp and table[place] != words[i]:
            place = (place + np.uint64(1)) & mask
        if stamps[place] != stamp:
            stamps[place], table[place] = stamp, words[i]
            words[kept], numeric[kept] = words[i], numeric[i]
            kept += 1
    return kept


@njit(cache=True)
def fill(table, words):  # type: ignore[no-untyped-def]
    """Put hashes into an empty table, a power of two long with room to spare; 0 is free."""
    mask = np.uint64(len(table) - 1)
    for word in words:
        place = word & mask
        while table[place]:
            place = (place + np.uint64(1)) & mask
        table[place] = word


@njit(cache=True)
def scratch(longest):  # type: ignore[no-untyped-def]
    """Arrays for the words of a text of ``longest`` bytes: words, numeric, table, stamps."""
    size = 16
    while size < 2 * longest + 2:
        size *= 2
    words, numeric = np.empty(longest + 1, np.uint64), np.empty(longest + 1, np.bool_)
    return words, numeric, np.empty(size, np.uint64), np.full(size, -1, np.int64)


@njit(cache=True)
def unique_words(text, offsets, longest, ngram, chosen, found):  # type: ignore[no-untyped-def]
    """Write each chosen text's words, each once a text, one after the other; answers how many."""
    words, numeric, table, stamps = scratch(longest)
    total = 0
    for row in chosen:
        count = hash_words(text, offsets[row], offsets[row + 1], words, numeric)
        count = join_grams(words, count, ngram)
        count = keep_unique(words, numeric, count, table, stamps, row)
        found[total : total + count] = words[:count]
        total += count
    return total


@njit(cache=True, nogil=True)
def sketch(  # type: ignore[no-untyped-def]
    text, offsets, longest, chosen, ngram, rows, fewest, common, first, keys, sequences, figures
):
    """Write what `data_prep.dedup.minhash.Sketches` holds of the chosen texts.

    Args:
        text: UTF-8 bytes of normalised texts.
        offsets: where each begins, and the last one ends.
        longest: bytes of the longest.
        chosen: which of them.
        ngram: words in an element.
        rows: hash values in a key.
        fewest: elements from which on a text is compared.
        common: a table of the elements that are left out.
        first: the number of the text at 0, among all texts.
        keys: written, ``keys[band, text]``; left as it is for a text that is not compared.
        sequences: written.
        figures: written.
    """
    bands = keys.shape[0]
    words, numeric, table, stamps = scratch(longest)
    rare = np.empty(longest + 1, np.uint64)
    size = bands * rows
    factor, offset = np.empty(size, np.uint32), np.empty(size, np.uint32)
    state = np.uint64(0x9E3779B97F4A7C15)
    for i in range(size):
        state = mix(state + np.uint64(0x9E3779B97F4A7C15))
        factor[i], offset[i] = np.uint32(state) | np.uint32(1), np.uint32(state >> np.uint64(32))
    mask = np.uint64(len(common) - 1)
    least = np.empty(size, np.uint32)
    for row in chosen:
        count = hash_words(text, offsets[row], offsets[row + 1], words, numeric)
        if not count:
            sequences[row] = mix(np.uint64(first + row))
            continue
        sequence = np.uint64(count)
        bits = np.uint64(0)
        for i in range(count):
            sequence = mix(sequence ^ words[i]) + np.uint64(i)
            if numeric[i]:
                bits |= ONE << (words[i] >> S58)
        sequences[row], figures[row] = sequence, bits
        count = join_grams(words, count, ngram)
        count = keep_unique(words, numeric, count, table, stamps, row)
        if count < fewest:
            continue
        left = 0
        for i in range(count):
            place = words[i] & mask
            while common[place] and common[place] != words[i]:
                place = (place + np.uint64(1)) & mask
            if not common[place]:
                rare[left] = words[i]
                left += 1
        hashes, total = (rare, left) if left >= FEWEST else (words, count)
        least[:] = EMPTY
        for i in range(total):
            high = np.uint32(hashes[i] >> np.uint64(32))
            low = np.uint32(hashes[i])
            for k in range(size):
                # Without the casts numba widens to 64 bits, and the loop is no longer one of SIMD.
                value = np.uint32((high ^ offset[k]) * factor[k] + low)
                value = np.uint32((value ^ (value >> np.uint32(15))) * SCRAMBLE)
                least[k] = min(least[k], value)
        for band in range(bands):
            key = np.uint64(band)
            for k in range(band * rows, band * rows + rows):
                key = mix(key * MIX + np.uint64(least[k]))
            keys[band, row] = min(np.uint32(key), EMPTY - np.uint32(1))


@njit(inline="always")
def _surely_differ(one, other):  # type: ignore[no-untyped-def]
    """Whether each of two texts has a number that the other lacks, by the bits of their numbers."""
    return (one & ~other) != 0 and (other & ~one) != 0


@njit(cache=True)
def pairs_in_groups(ordered, figures, found):  # type: ignore[no-untyped-def]
    """Write the pairs of one band as far as there is room; answers how many there are.

    Of a large group not all pairs: each text with the first texts, and with a neighbour, so that
    texts that have the same numbers are neighbours.

    Args:
        ordered: ``key << 32 | text`` of all texts, ascending.
        figures: bits of the numbers of each text; pairs that they tell apart are left out.
        found: written, ``earlier << 32 | later``.
    """
    total, start = 0, 0
    low = np.uint64(0xFFFFFFFF)
    for i in range(1, len(ordered) + 1):
        key = ordered[start] >> S32
        if i < len(ordered) and ordered[i] >> S32 == key:
            continue
        large = i - start > FIRST + 1
        if key != EMPTY:
            for place in range(start + 1, i):
                later = ordered[place] & low
                for turn in range(start, min(place, start + FIRST)):
                    earlier = ordered[turn] & low
                    if not _surely_differ(figures[earlier], figures[later]):
                        if total < len(found):
                            found[total] = earlier << S32 | later
                        total += 1
        if key != EMPTY and large:
            members = ordered[start:i] & low
            order = members[np.argsort(figures[members], kind="mergesort")]
            behind = members[FIRST]
            for place in range(1, len(order)):
                earlier = min(order[place - 1], order[place])
                later = max(order[place - 1], order[place])
                if earlier >= behind and not _surely_differ(figures[earlier], figures[later]):
                    if total < len(found):
                        found[total] = earlier << S32 | later
                    total += 1
        start = i
    return total


@njit(cache=True)
def pairs_across(ordered, border, figures, found):  # type: ignore[no-untyped-def]
    """Write pairs of one band of which one text is before a border and the other is not.

    Of a large group, each text before the border makes pairs with the first ones behind it.

    Args:
        ordered: as for `pairs_in_groups`.
        border: the first text behind it.
        figures: as for `pairs_in_groups`.
        found: as for `pairs_in_groups`.
    """
    total, start, behind = 0, 0, 0
    low = np.uint64(0xFFFFFFFF)
    for i in range(1, len(ordered) + 1):
        key = ordered[start] >> S32
        if i < len(ordered) and ordered[i] >> S32 == key:
            continue
        behind = start
        while behind < i and ordered[behind] & low < border:
            behind += 1
        if key != EMPTY:
            for place in range(start, behind):
                earlier = ordered[place] & low
                for turn in range(behind, min(i, behind + FIRST)):
                    later = ordered[turn] & low
                    if not _surely_differ(figures[earlier], figures[later]):
                        if total < len(found):
                            found[total] = earlier << S32 | later
                        total += 1
        start = i
    return total


@njit(cache=True, nogil=True)
def count_similarity(text, offsets, longest, ngram, pairs, similarity):  # type: ignore[no-untyped-def]
    """Count the Jaccard similarity of each pair of texts."""
    words, numeric, table, stamps = scratch(longest)
    others, marks, other_table, other_stamps = scratch(longest)
    mask = np.uint64(len(table) - 1)
    before, count, stamp = np.uint64(len(offsets)), 0, 0
    for index in range(len(pairs)):
        left, right = pairs[index] >> np.uint64(32), pairs[index] & np.uint64(0xFFFFFFFF)
        if left != before:
            count = hash_words(text, offsets[left], offsets[left + 1], words, numeric)
            count = join_grams(words, count, ngram)
            count = keep_unique(words, numeric, count, table, stamps, index)
            before, stamp = left, index
        total = hash_words(text, offsets[right], offsets[right + 1], others, marks)
        total = join_grams(others, total, ngram)
        total = keep_unique(others, marks, total, other_table, other_stamps, index)
        shared = 0
        for i in range(total):
            place = others[i] & mask
            while stamps[place] == stamp and table[place] != others[i]:
                place = (place + np.uint64(1)) & mask
            shared += stamps[place] == stamp
        similarity[index] = shared / max(1, count + total - shared)


@njit(inline="always")
def _next_figure(marks, at, count):  # type: ignore[no-untyped-def]
    """The first place from ``at`` on of a figure, or of an operator that stands before one."""
    while at < count and not (
        marks[at] == FIGURE or (marks[at] == SIGN and at + 1 < count and marks[at + 1] == FIGURE)
    ):
        at += 1
    return at


@njit(inline="always")
def _only_figures_differ(words, marks, count, others, other_marks, total):  # type: ignore[no-untyped-def]
    """Whether two texts have figures, other ones, and the same words beside them in one order."""
    i, j = 0, 0
    while True:
        while i < count and (marks[i] == FIGURE or marks[i] == SIGN):
            i += 1
        while j < total and (other_marks[j] == FIGURE or other_marks[j] == SIGN):
            j += 1
        if i == count or j == total:
            break
        if words[i] != others[j]:
            return False
        i, j = i + 1, j + 1
    if i < count or j < total:
        return False
    i, j = _next_figure(marks, 0, count), _next_figure(other_marks, 0, total)
    if i == count or j == total:
        return False
    while i < count and j < total and words[i] == others[j]:
        i = _next_figure(marks, i + 1, count)
        j = _next_figure(other_marks, j + 1, total)
    return i < count or j < total


@njit(inline="always")
def _has_number_beside(words, marks, count, table, stamps, stamp):  # type: ignore[no-untyped-def]
    """Whether a text has a number or an operator that is not in a table."""
    mask = np.uint64(len(table) - 1)
    for i in range(count):
        if marks[i]:
            place = words[i] & mask
            while stamps[place] == stamp and table[place] != words[i]:
                place = (place + np.uint64(1)) & mask
            if stamps[place] != stamp:
                return True
    return False


@njit(cache=True)
def numbers_differ(text, offsets, longest, pairs, differ):  # type: ignore[no-untyped-def]
    """Mark pairs that their numbers tell apart.

    Each text has a number or an operator that the other lacks; or both have figures and are the
    same but for these: swapped, repeated, negative, fewer.
    """
    words, _, table, stamps = scratch(longest)
    others, _, other_table, other_stamps = scratch(longest)
    marks, other_marks = np.empty(longest + 1, np.uint8), np.empty(longest + 1, np.uint8)
    for index in range(len(pairs)):
        left, right = pairs[index] >> np.uint64(32), pairs[index] & np.uint64(0xFFFFFFFF)
        count = hash_words(text, offsets[left], offsets[left + 1], words, marks)
        total = hash_words(text, offsets[right], offsets[right + 1], others, other_marks)
        if _only_figures_differ(words, marks, count, others, other_marks, total):
            differ[index] = True
            continue
        count = keep_unique(words, marks, count, table, stamps, index)
        total = keep_unique(others, other_marks, total, other_table, other_stamps, index)
        differ[index] = _has_number_beside(
            words, marks, count, other_table, other_stamps, index
        ) and _has_number_beside(others, other_marks, total, table, stamps, index)


@njit(cache=True)
def gather(text, offsets, chosen, places, buffer):  # type: ignore[no-untyped-def]
    """Copy the chosen texts to their places in a buffer."""
    for index in range(len(chosen)):
        begin, length = offsets[chosen[index]], places[index + 1] - places[index]
        buffer[places[index] : places[index] + length] = text[begin : begin + length]
