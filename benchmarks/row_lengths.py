"""Rows to pack: those of real files, and lengths drawn from lognormal distributions.

Of every row its tokens are known, and which of them are the answers, so that over-long rows can be
split as the product splits them. Real rows are rendered with SmolLM2's tokenizer and chat template
when the model is in the cache; else a word counts as 1.3 tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_prep.chat_templates import load_template
from data_prep.errors import DataError
from data_prep.reading import ReadRow, read_rows
from data_prep.rendering import Rendered, render
from data_prep.rows import Completion, Conversation, Message
from data_prep.sources.config import SourceConfig
from data_prep.tokenizer import load_tokenizer
from llmkit.models.catalog import cache_folder

Rows = Sequence[Conversation | Completion]

STOP = 2
"""The id that ends an answer where no tokenizer says which."""


@dataclass(frozen=True)
class RowSet:
    """Rows of one origin."""

    name: str
    lengths: NDArray[np.int64]
    row: Callable[[int], Rendered]
    """A row's tokens and mask, by its index."""


def real_sets(data: Path) -> tuple[str, list[RowSet]]:
    """The files below a folder that have rows to train on; how their tokens were counted."""
    how, to_tokens = _counter()
    sets = []
    for path in sorted([*data.rglob("*.json"), *data.rglob("*.jsonl")]):
        try:
            found = list(read_rows(SourceConfig(path=str(path)), "merge"))
        except DataError as error:
            print(f"left out: {error}")
            continue
        read = [each.row for each in found if isinstance(each, ReadRow)]
        rows = to_tokens([row for row in read if isinstance(row, Conversation | Completion)])
        if rows:
            lengths = np.array([len(row.ids) for row in rows])
            sets.append(RowSet(path.stem, lengths, rows.__getitem__))
    return how, sets


def lognormal(name: str, count: int, median: int, spread: float, turns: bool = False) -> RowSet:  # noqa: FBT001, FBT002
    """Rows whose lengths are drawn; 30% of a turn is the question.

    Args:
        name: of the set.
        count: rows.
        median: tokens.
        spread: the standard deviation of the lengths' logarithm.
        turns: whether a row is a conversation in turns of about 150 tokens, or one turn.
    """
    random = np.random.default_rng(count)
    lengths = np.maximum(8, random.lognormal(np.log(median), spread, count)).astype(np.int64)

    def row(index: int) -> Rendered:
        left, begin = int(lengths[index]), 0
        ids, mask = np.zeros(left, np.int32), np.ones(left, np.bool_)
        draws, stops = np.random.default_rng(index), []
        while left:
            turn = min(left, max(8, int(draws.lognormal(5, 0.6)))) if turns else left
            turn = left if left - turn < 8 else turn
            mask[begin : begin + max(2, int(turn * 0.3))] = False
            begin, left = begin + turn, left - turn
            stops.append(begin - 1)
        ids[stops] = STOP
        return Rendered(ids, mask, 0, STOP, np.array(stops))

    return RowSet(name, lengths, row)


def _counter() -> tuple[str, Callable[[Rows], list[Rendered]]]:
    model = cache_folder() / "models" / "smollm2-135m-instruct"
    if not (model / "tokenizer.json").is_file():
        return "words * 1.3", lambda rows: [_by_words(row) for row in rows]
    template = load_template("keep", load_tokenizer(model))

    def rendered(rows: Rows) -> list[Rendered]:
        return [found for found in render(rows, template) if isinstance(found, Rendered)]

    return "SmolLM2's tokenizer and chat template", rendered


def _by_words(row: Conversation | Completion) -> Rendered:
    """Tokens estimated from words; an answer ends in its stop token."""
    turns: Sequence[Message] = (
        [Message("user", row.prompt), Message("assistant", row.completion)]
        if isinstance(row, Completion)
        else row.messages
    )
    mask: list[bool] = []
    stops = []
    for turn in turns:
        tokens = 2 + int(1.3 * len(turn.content.split()))
        mask += [turn.role == "assistant"] * tokens
        stops.append(len(mask) - 1)
    ids = np.zeros(len(mask), np.int32)
    ids[stops] = STOP
    answers = np.array([stop for stop in stops if mask[stop]], np.int64)
    return Rendered(ids, np.array(mask), 0, STOP, answers)
