"""A few rows kept beside the sequences, for stages that render and ask them again."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from data_prep.rendering import Rendered
from data_prep.row_codec import are_texts, decode_row
from data_prep.rows import Completion, Row, Text
from data_prep.shards import Rows
from data_prep.tokenizer import Tokenizer
from data_prep.units import GOOD, Units, rows_of

SAMPLES = 64
"""Rows kept; held-out rows first."""


def choose_samples(
    rows: Rows,
    train: NDArray[np.int64],
    validation: NDArray[np.int64],
    tokenizer: Tokenizer,
    units: Units = "rows",
) -> list[tuple[str, Row, Rendered]]:
    """Evenly spread rows: what verification asks the server to render again.

    Of preferences the chosen side, or good answers: what the model is to say.

    Args:
        rows: all of them.
        train: the rows that are trained on; some of them twice, perhaps.
        validation: the rows that are held out.
        tokenizer: the base model's, with which they were rendered.
        units: what is learned from together.
    """
    # Of a cut or split row, the prompt before its last answer may be gone; of a text nothing is.
    kept, pieces = rows.array("kept"), rows.array("piece_count")
    whole = (kept == rows.array("tokens")) & (rows.array("prompt_tokens") < kept)
    whole &= pieces == (2 if units == "pairs" else 1)
    cut = (pieces > 0) & ~whole
    if units == "labelled":
        whole &= rows.array("good") == GOOD
    sides = validation, np.unique(train)
    chosen: list[NDArray[np.int64]] = []
    for side in sides:
        chosen.append(_spread(side[whole[side]], SAMPLES - sum(map(len, chosen))))
    if sum(map(len, chosen)) < SAMPLES and units == "rows" and cut.any():
        cut &= _plain_texts(rows)
        for side in sides:
            chosen.append(_spread(side[cut[side]], SAMPLES - sum(map(len, chosen))))
    columns = ("where", "row", "pieces", "ids", "supervised", "prompt_tokens", "stop_id")
    samples = []
    for each in rows.take(np.concatenate(chosen), *columns).to_pylist():
        row, first = decode_row(each["row"]), each["pieces"][0]
        ids = np.array(each["ids"][:first], np.int32)
        supervised = np.array(each["supervised"][:first], np.bool_)
        rendered = Rendered(ids, supervised, each["prompt_tokens"], each["stop_id"])
        said = rows_of(row, units)[0]
        for asked, its in _askable(said, rendered, tokenizer):
            samples.append((each["where"], asked, its))
    return samples


def _askable(row: Row, rendered: Rendered, tokenizer: Tokenizer) -> Iterator[tuple[Row, Rendered]]:
    """The row; of plain text, its first half is what a server is asked to go on from.

    Nothing of a text that has no half: a server refuses an empty prompt.
    """
    if isinstance(row, Text):
        row = Completion("", row.text)
    if not isinstance(row, Completion) or row.prompt:
        yield row, rendered
        return
    begin = rendered.prompt_tokens  # what the tokenizer puts before any text
    for end in range((begin + len(rendered.ids)) // 2, begin, -1):
        ids = rendered.ids[begin:end].tolist()
        prompt = tokenizer.decode(ids)
        # A text cut anywhere may end inside a character, or be split into other tokens.
        if prompt and row.completion.startswith(prompt) and tokenizer.encode([prompt]) == [ids]:
            rest = row.completion[len(prompt) :]
            yield Completion(prompt, rest), replace(rendered, prompt_tokens=end)
            return


def _plain_texts(rows: Rows) -> NDArray[np.bool_]:
    """Which of all rows are plain text."""
    return np.concatenate([are_texts(table.column(0)) for _, table in rows.each("row")])


def _spread(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    count = min(most, len(rows))
    spread: NDArray[np.int64] = rows[np.arange(count) * len(rows) // max(1, count)]
    return spread
