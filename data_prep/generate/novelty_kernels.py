"""ROUGE-L against many texts at once, compiled by numba."""

import numpy as np
from numba import njit


@njit(cache=True)
def add(text, words, heads, links, link_texts, link_count, frequencies):  # type: ignore[no-untyped-def]
    """Link a text into the list of each word that it has; answers how many links there are."""
    for word in words:
        first = heads[word]
        if first >= 0 and link_texts[first] == text:
            continue
        links[link_count] = first
        link_texts[link_count] = text
        heads[word] = link_count
        frequencies[word] += 1
        link_count += 1
    return link_count


@njit(cache=True)
def nearest(query, chosen, all_words, offsets, heads, links, link_texts, slots, seen, threshold):  # type: ignore[no-untyped-def]
    """The text with the highest ROUGE-L to a query, the first of equal ones.

    Args:
        query: word numbers, -1 for words that no text has.
        chosen: words of the query of which any text above the threshold has at least one.
        all_words: word numbers of all texts, one after the other.
        offsets: where each text begins in ``all_words``, and the end.
        heads: first link of each word, or -1.
        links: the next link of the same word, or -1.
        link_texts: the text that a link is about.
        slots: scratch, -1 for every word; left as it was.
        seen: scratch, for every text the number of the last query that looked at it.
        threshold: scores below it count as none.

    Returns:
        The text, or -1, and its score.
    """
    length = len(query)
    blocks = (length + 63) // 64
    masks = np.zeros((length, blocks), np.uint64)
    used = 0
    for i in range(length):
        word = query[i]
        if word < 0:
            continue
        if slots[word] < 0:
            slots[word] = used
            used += 1
        masks[slots[word], i // 64] |= np.uint64(1) << np.uint64(i % 64)
    row = np.empty(blocks, np.uint64)
    best, best_score = -1, 0.0
    seen[-1] += 1
    for word in chosen:
        link = heads[word]
        while link >= 0:
            text = link_texts[link]
            link = links[link]
            if seen[text] == seen[-1]:
                continue
            seen[text] = seen[-1]
            start, end = offsets[text], offsets[text + 1]
            both = length + end - start
            if 2.0 * min(length, end - start) / both < max(threshold, best_score):
                continue
            score = 2.0 * _common(masks, slots, all_words, start, end, row, length) / both
            if score < threshold or score < best_score:
                continue
            if score > best_score or text < best:
                best, best_score = text, score
    for i in range(length):
        if query[i] >= 0:
            slots[query[i]] = -1
    return best, best_score


@njit(inline="always")
def _common(masks, slots, all_words, start, end, row, length):  # type: ignore[no-untyped-def]
    """Length of the longest common subsequence, 64 words of the query at a time.

    Source: Hyyrö (2004), "Bit-parallel LCS-length computation revisited".
    """
    blocks = len(row)
    row[:] = ~np.uint64(0)
    for at in range(start, end):
        slot = slots[all_words[at]]
        if slot < 0:
            continue
        carry = np.uint64(0)
        for k in range(blocks):
            one = row[k]
            matched = one & masks[slot, k]
            total = one + matched
            over = total < one
            total += carry
            carry = np.uint64(1) if over or total < carry else np.uint64(0)
            row[k] = total | (one & ~matched)
    common = 0
    for i in range(length):
        if not (row[i // 64] >> np.uint64(i % 64)) & np.uint64(1):
            common += 1
    return common
