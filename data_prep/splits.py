"""Which rows are trained on and which are held out: duplicates, leaks, and the split."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from data_prep.ledger import Dropped, Ledger
from data_prep.rows import Completion, Message, Row


@dataclass(frozen=True, slots=True)
class PlacedRow:
    """A row and the place it came from."""

    where: str
    row: Row


def row_hash(row: Row) -> str:
    """The same for two rows exactly when every turn and tool of theirs is the same."""
    if isinstance(row, Completion):
        parts: Any = [row.prompt, row.completion]
    else:
        turns = [[m.role, m.content, m.train, _calls(m)] for m in row.messages]
        parts = {"turns": turns, "tools": row.tools}
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, default=str)
    return xxhash.xxh3_128_hexdigest(text.encode())


def _calls(message: Message) -> list[Any]:
    """What a message calls; the calls' ids say nothing."""
    return [call["function"] for call in message.tool_calls]


def prompt_hash(row: Row, seed: int = 0) -> str:
    """The same for rows that ask the same first question, whatever their answers."""
    if isinstance(row, Completion):
        prompt = row.prompt if row.prompt.strip() else row.completion
    else:
        prompt = next((m.content for m in row.messages if m.role == "user"), "")
    return xxhash.xxh3_128_hexdigest(" ".join(prompt.lower().split()).encode(), seed=seed)


def drop_duplicates(rows: Sequence[PlacedRow], ledger: Ledger) -> list[PlacedRow]:
    """Keep the first of every set of equal rows; the others name it as their witness."""
    first: dict[str, PlacedRow] = {}
    for placed in rows:
        witness = first.setdefault(row_hash(placed.row), placed)
        if witness is not placed:
            ledger.dropped.append(
                Dropped(where=placed.where, reason="exact duplicate", witness=witness.where)
            )
    return list(first.values())


def drop_leaks(
    rows: Sequence[PlacedRow], held_out: Sequence[PlacedRow], ledger: Ledger
) -> list[PlacedRow]:
    """Drop training rows that ask what the validation source asks, whatever they answer."""
    validation = {prompt_hash(placed.row): placed.where for placed in held_out}
    kept = []
    for placed in rows:
        witness = validation.get(prompt_hash(placed.row))
        if witness is None:
            kept.append(placed)
        else:
            ledger.dropped.append(
                Dropped(where=placed.where, reason="also in validation", witness=witness)
            )
    return kept


def hold_out(
    rows: Sequence[PlacedRow], size: float, seed: int
) -> tuple[list[PlacedRow], list[PlacedRow]]:
    """Split rows into training and validation.

    Rows that ask the same first question go to the same side, so that no answer to a validation
    prompt was trained on. Which prompts are held out depends on their text and the seed alone,
    not on the order of the rows.

    Args:
        rows: every row.
        size: a fraction of the rows (below 1) or their number; never exceeded, unless even the
            smallest group is larger.
        seed: another seed, another split.

    Returns:
        Training rows and validation rows, each in their own order.
    """
    wanted = round(size * len(rows)) if size < 1 else int(size)
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
    sides: tuple[list[PlacedRow], list[PlacedRow]] = ([], [])
    for placed in rows:
        sides[prompt_hash(placed.row, seed) in chosen].append(placed)
    return sides
