"""What was found in batches of rows, counted so that the counts of batches add up."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import xxhash
from pydantic import BaseModel, ConfigDict

from data_prep.contamination.index import EvaluationIndex
from data_prep.contamination.overlap import Overlap
from data_prep.contamination.settings import Kind
from data_prep.contamination.words import words_of

AROUND = 300
"""Characters of each text that an example shows."""
BEFORE = 60
"""Of these, how many stand before the match."""


class Example(BaseModel):
    """A training row beside the evaluation text that stands in it."""

    model_config = ConfigDict(frozen=True)

    row: str
    """The training row's place."""
    overlap: Overlap
    training: str
    """What stands in the row around the match."""
    evaluation: str


@dataclass
class Tally:
    """What was found in some training rows; tallies of batches can be merged in any order."""

    rows: int = 0
    rows_leaked: int = 0
    methods: Counter[tuple[int, Kind, str]] = field(default_factory=Counter)
    """Rows by set, kind and strongest method."""
    texts: Counter[tuple[int, Kind]] = field(default_factory=Counter)
    """Rows by evaluation text and kind."""
    examples: dict[tuple[int, Kind, str], list[tuple[int, Example]]] = field(default_factory=dict)
    """A few of each set, kind and method, those with the lowest hashes."""


def tally(
    index: EvaluationIndex,
    places: Sequence[str],
    prompts: Sequence[str],
    responses: Sequence[str],
    overlaps: Sequence[tuple[Overlap, ...]],
) -> Tally:
    """Count what ``find_overlaps`` found in these rows.

    Args:
        index: the evaluation texts.
        places: of the rows.
        prompts: as given to ``find_overlaps``.
        responses: as given to ``find_overlaps``.
        overlaps: as it answered.
    """
    found = Tally(rows=len(places))
    rows = zip(places, prompts, responses, overlaps, strict=True)
    for place, prompt, response, hits in rows:
        found.rows_leaked += any(hit.kind == "leak" for hit in hits)
        strongest: dict[int, Overlap] = {}
        for hit in hits:
            strongest.setdefault(index.texts[hit.text].set_index, hit)
            found.texts[hit.text, hit.kind] += 1
        for number, hit in strongest.items():
            key = number, hit.kind, hit.method
            found.methods[key] += 1
            # By hash: a spread of all rows, whichever batch they come in.
            rank = xxhash.xxh3_64_intdigest(f"{place}\n{hit.where}".encode())
            kept = found.examples.setdefault(key, [])
            if len(kept) < index.config.examples or (kept and rank < kept[-1][0]):
                said = prompt if hit.side == "prompt" else response
                kept.append((rank, _example(index, place, hit, said)))
                _keep_lowest(kept, index.config.examples)
    return found


def merge(tallies: Iterable[Tally], examples: int) -> Tally:
    """Add up tallies of different rows; their order does not matter.

    Args:
        tallies: of batches.
        examples: how many to keep of each kind.
    """
    total = Tally()
    for each in tallies:
        total.rows += each.rows
        total.rows_leaked += each.rows_leaked
        total.methods += each.methods
        total.texts += each.texts
        for key, more in each.examples.items():
            kept = total.examples.setdefault(key, [])
            kept += more
            _keep_lowest(kept, examples)
    return total


def _keep_lowest(kept: list[tuple[int, Example]], count: int) -> None:
    kept.sort(key=lambda each: (each[0], each[1].row, each[1].overlap.text))
    del kept[count:]


def _example(index: EvaluationIndex, place: str, hit: Overlap, said: str) -> Example:
    asked = index.texts[hit.text]
    return Example(
        row=place,
        overlap=hit,
        training=_window(said, hit.at),
        evaluation=_window(asked.text, hit.core[0]),
    )


def _window(text: str, word: int) -> str:
    """The part of a text around its word of this number."""
    low, high = 0, len(text)
    while word and low < high:  # words before a character: more the further it stands
        middle = (low + high) // 2
        if len(words_of([text[:middle]]).words) <= word:
            low = middle + 1
        else:
            high = middle
    start = max(0, low - 1 - BEFORE)
    stop = start + AROUND
    return "..." * (start > 0) + text[start:stop] + "..." * (stop < len(text))
