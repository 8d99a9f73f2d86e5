"""The loops over blocks of cosines, compiled by numba.

A block of float32 products comes from BLAS, whose rounding depends on its threads. Wherever that
could decide anything, the cosine is computed anew in float64, in a fixed order.
"""

import numpy as np
from numba import njit

MARGIN = 1e-4
"""float32 products this close to a bound are not believed; their error is below 1e-6."""


@njit(inline="always")
def exact_cosine(one, other):  # type: ignore[no-untyped-def]
    """Dot product in float64; eight sums side by side, so that none waits for the one before."""
    sums = np.zeros(8)
    whole = len(one) - len(one) % 8
    for k in range(0, whole, 8):
        for lane in range(8):
            sums[lane] += np.float64(one[k + lane]) * np.float64(other[k + lane])
    for k in range(whole, len(one)):
        sums[0] += np.float64(one[k]) * np.float64(other[k])
    return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]))


@njit(inline="always")
def numbers_differ(values, offsets, one, other):  # type: ignore[no-untyped-def]
    """Whether each of two texts has a number that the other lacks."""
    i, i_end = offsets[one], offsets[one + 1]
    j, j_end = offsets[other], offsets[other + 1]
    lacks_one, lacks_other = False, False
    while i < i_end and j < j_end:
        if values[i] == values[j]:
            i, j = i + 1, j + 1
        elif values[i] < values[j]:
            i, lacks_other = i + 1, True
        else:
            j, lacks_one = j + 1, True
    return (lacks_other or i < i_end) and (lacks_one or j < j_end)


@njit(inline="always")
def _alike(product, one, other, threshold, vectors, values, offsets):  # type: ignore[no-untyped-def]
    if product < threshold - MARGIN:
        return False
    if product < threshold + MARGIN and exact_cosine(vectors[one], vectors[other]) < threshold:
        return False
    return not numbers_differ(values, offsets, one, other)


@njit(cache=True)
def count_alike(products, first, second, threshold, vectors, values, offsets, weights, degrees):  # type: ignore[no-untyped-def]
    """Add to each row's degree the weights of the rows that are alike to it.

    Args:
        products: cosines of rows ``first...`` and rows ``second...``; of pairs that stand twice
            only those with the smaller row first are looked at.
        first: row of ``products[0]``.
        second: row of ``products[:, 0]``.
        threshold: from which rows are alike.
        vectors: of all rows.
        values: number sets of all rows.
        offsets: where each begins.
        weights: how many rows each row stands for.
        degrees: written.
    """
    lowest = np.float32(threshold - MARGIN)
    for i in range(products.shape[0]):
        one = first + i
        for j in range(max(0, one + 1 - second), products.shape[1]):
            if products[i, j] >= lowest:
                other = second + j
                if _alike(products[i, j], one, other, threshold, vectors, values, offsets):
                    degrees[one] += weights[other]
                    degrees[other] += weights[one]


@njit(cache=True)
def keep_in_turn(products, rows, threshold, vectors, values, offsets, covered, kept):  # type: ignore[no-untyped-def]
    """Keep each of the rows, in their order, that is not alike to one kept before it."""
    for i in range(len(rows)):
        if covered[rows[i]]:
            continue
        kept[rows[i]] = True
        for j in range(i + 1, len(rows)):
            if not covered[rows[j]] and _alike(
                products[i, j], rows[i], rows[j], threshold, vectors, values, offsets
            ):
                covered[rows[j]] = True


@njit(cache=True)
def cover(products, centres, rows, threshold, vectors, values, offsets, covered, witness, best):  # type: ignore[no-untyped-def]
    """Mark the rows that are alike to a kept one, and note which kept one is most alike to each.

    Args:
        products: cosines of ``centres`` and ``rows``.
        centres: rows that stay.
        rows: rows that do not, or that are not decided yet.
        threshold: from which rows are alike.
        vectors: of all rows.
        values: number sets of all rows.
        offsets: where each begins.
        covered: written.
        witness: written; -1 where there is none yet.
        best: written; the witness's cosine.
    """
    for i in range(len(centres)):
        centre = centres[i]
        for j in range(len(rows)):
            row = rows[j]
            if products[i, j] < max(threshold, best[row]) - MARGIN:
                continue
            cosine = exact_cosine(vectors[centre], vectors[row])
            if cosine < threshold or numbers_differ(values, offsets, centre, row):
                continue
            covered[row] = True
            if cosine > best[row] or (cosine == best[row] and centre < witness[row]):
                witness[row], best[row] = centre, cosine
