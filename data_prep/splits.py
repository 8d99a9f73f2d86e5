"""Which rows are trained on and which are held out."""

from collections.abc import Sequence
from typing import TypeVar

import xxhash

from data_prep.rows import Completion, Placed, Row, Text

P = TypeVar("P", bound=Placed)


def prompt_hash(row: Row, seed: int = 0) -> str:
    """The same for rows that ask the same first question, whatever their answers."""
    if isinstance(row, Completion):
        prompt = row.prompt if row.prompt.strip() else row.completion
    elif isinstance(row, Text):
        prompt = row.text
    else:
        prompt = next((m.content for m in row.messages if m.role == "user"), "")
    return xxhash.xxh3_128_hexdigest(" ".join(prompt.lower().split()).encode(), seed=seed)


def find_leaks(rows: Sequence[Placed], held_out: Sequence[Placed]) -> dict[int, str]:
    """Training rows that ask what a row of the validation source asks, whatever they answer.

    Returns:
        The index of each such training row, and the place of the validation row.
    """
    validation = {prompt_hash(placed.row): placed.where for placed in held_out}
    hashes = (prompt_hash(placed.row) for placed in rows)
    return {i: validation[found] for i, found in enumerate(hashes) if found in validation}


def hold_out(rows: Sequence[P], size: float, seed: int) -> tuple[list[P], list[P]]:
    """Split rows into training and validation.

    Rows that ask the same first question go to the same side, so that no answer to a validation
    prompt was trained on. Which prompts are held out depends on their text and the seed alone,
    not on the order of the rows.

    Args:
        rows: every row.
        size: a fraction of the rows (below 1) or their number; never exceeded, unless even the
            smallest group is larger. A fraction above 0 holds out at least one of several rows.
        seed: another seed, another split.

    Returns:
        Training rows and validation rows, each in their own order.
    """
    wanted = round(size * len(rows)) if size < 1 else int(size)
    if size and len(rows) > 1:
        wanted = max(1, wanted)  # of few rows a small fraction would be none
    groups: dict[str, int] = {}
    for placed in rows:
        key = prompt_hash(placed.row, seed)
        groups[key] = groups.get(key, 0) + 1
    chosen: set[str] = set()
    room = wanted
    for key in sorted(groups):
        if groups[key] <= room:
            chosen.add(key)
            room -= groups[key]
    if wanted and not chosen and groups:  # every group is larger than wanted
        chosen.add(min(sorted(groups), key=groups.__getitem__))
    sides: tuple[list[P], list[P]] = ([], [])
    for placed in rows:
        sides[prompt_hash(placed.row, seed) in chosen].append(placed)
    return sides
