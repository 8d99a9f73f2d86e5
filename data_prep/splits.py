"""Which rows are trained on and which are held out."""

import numpy as np
import xxhash
from numpy.typing import NDArray

from data_prep.rows import Completion, Labelled, Preference, Row, Text


def prompt_hash(row: Row) -> int:
    """The same 64 bits for rows that ask the same first question, whatever their answers."""
    if isinstance(row, Preference | Labelled):
        row = row.chosen_row if isinstance(row, Preference) else row.row
    if isinstance(row, Text):
        prompt = row.text
    elif isinstance(row, Completion):
        prompt = row.prompt if row.prompt.strip() else row.completion
    else:
        prompt = next((m.content for m in row.messages if m.role == "user"), "")
    return xxhash.xxh3_64_intdigest(" ".join(prompt.lower().split()).encode())


def find_leaks(
    keys: NDArray[np.uint64], train: NDArray[np.int64], held_out: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Training rows that have something in common with a row of the validation source.

    Args:
        keys: of every row, a hash of what must not be on both sides: its first question, whatever
            the answer; or its group. 0 says nothing.
        train: numbers of training rows.
        held_out: numbers of validation rows.

    Returns:
        The numbers of such training rows, and of a validation row for each.
    """
    there, first = np.unique(keys[held_out], return_index=True)
    wanted = keys[train]
    places = np.searchsorted(there, wanted)
    found = (places < len(there)) & (wanted != 0)
    found[found] = there[places[found]] == wanted[found]
    return train[found], held_out[first[places[found]]]


def group_rows(keys: list[NDArray[np.uint64]], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the groups of rows that must stay together.

    Args:
        keys: columns of hashes, shape ``[rows]`` each: rows with an equal hash in any column
            stay together; 0 says nothing.
        pairs: rows that stay together, shape ``[pairs, 2]``.

    Returns:
        The group of each row, shape ``[rows]``.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(keys[0])
    ends = [pairs]
    for column in keys:
        rows = np.flatnonzero(column)
        order = rows[np.argsort(column[rows], kind="stable")]
        same = column[order[1:]] == column[order[:-1]]
        ends.append(np.stack([order[:-1][same], order[1:][same]], axis=1))
    edges = np.concatenate(ends)
    graph = coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), (count, count))
    found: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return found


def hold_out(
    prompts: NDArray[np.uint64], groups: NDArray[np.int64], size: float, seed: int
) -> NDArray[np.bool_]:
    """Choose the rows of validation, whole groups at a time.

    Which groups are held out depends on their questions and the seed alone, not on the order of
    the rows.

    Args:
        prompts: a hash of each row's first question, shape ``[rows]``.
        groups: the group of each row; rows of a group go to the same side.
        size: a fraction of the rows (below 1) or their number, see `rows_wanted`; never exceeded,
            unless even the smallest group is larger.
        seed: another seed, another split.

    Returns:
        Which rows are held out, shape ``[rows]``.
    """
    wanted = rows_wanted(size, len(prompts))
    if not wanted:
        return np.zeros(len(prompts), bool)
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    smallest = np.full(len(sizes), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, group, mixed(prompts, seed))
    order = np.argsort(smallest, kind="stable")
    chosen = np.zeros(len(sizes), bool)
    room = wanted
    for each in order.tolist():
        if sizes[each] <= room:
            chosen[each] = True
            room -= sizes[each]
        if not room:
            break
    if not chosen.any():  # every group is larger than wanted
        chosen[order[np.argmin(sizes[order])]] = True
    return chosen[group]


def rows_wanted(size: float, count: int) -> int:
    """How many of so many rows are to be held out.

    Args:
        size: their number; or a fraction (below 1), of which every one above 0 leaves rows on both
            sides where there are several.
        count: rows there are.
    """
    if size >= 1:
        return min(int(size), count)
    return min(max(1, round(size * count)), count - 1) if size and count else 0


def mixed(values: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Shuffle hashes: other bits for another seed (the finaliser of SplitMix64)."""
    with np.errstate(over="ignore"):
        bits = values + np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: NDArray[np.uint64] = bits ^ (bits >> np.uint64(31))
    return found
