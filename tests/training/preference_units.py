"""Preferences as the data side prepares them, written by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_prep.columns import list_array
from data_prep.prepared import PreparedDataset, Sample
from llmkit.training.batching import Sequence

TOKENS = 280
"""The tiny model knows at least so many."""
PROMPTS = ["train", "run", "merge", "serve", "verify", "model", "data", "recipe"]
GOOD_WORDS = ["the", "command", "model", "do"]
BAD_WORDS = ["why", "yes", "no", "?"]


def side(prompt: list[int], answer: list[int], kind: int) -> Sequence:
    """One row of a unit: its answer is supervised."""
    return Sequence(
        np.array(prompt + answer, np.int32),
        np.array([False] * len(prompt) + [True] * len(answer)),
        np.array([len(prompt) + len(answer)], np.int32),
        np.array([kind], np.int8),
    )


def pairs(count: int, prompt_tokens: int | None = None, seed: int = 0) -> list[Sequence]:
    """Random pairs of the tiny model's tokens, of different lengths."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        prompt = draw.integers(3, TOKENS, prompt_tokens or draw.integers(2, 9)).tolist()
        chosen, rejected = (draw.integers(3, TOKENS, draw.integers(2, 12)).tolist() for _ in "ab")
        made.append(Sequence.joined(side(prompt, chosen, 1), side(prompt, rejected, 0)))
    return made


def labelled(labels: list[bool], seed: int = 0) -> list[Sequence]:
    """Random labelled rows, each with a mismatched one: the next row's answer."""
    draw = np.random.default_rng(seed)
    rows = [
        (
            draw.integers(3, TOKENS, draw.integers(2, 9)).tolist(),
            draw.integers(3, TOKENS, n).tolist(),
        )
        for n in draw.integers(2, 12, len(labels))
    ]
    return [
        Sequence.joined(
            side(prompt, answer, int(label)), side(prompt, rows[(i + 1) % len(rows)][1], 2)
        )
        for i, ((prompt, answer), label) in enumerate(zip(rows, labels, strict=True))
    ]


def learnable(encode: Any, count: int, kind: str) -> list[Sequence]:
    """Units in which good answers and bad ones are told apart by their words."""
    draw = np.random.default_rng(count)
    made = []
    for index in range(count):
        prompt = encode(f"{index} how to {PROMPTS[index % len(PROMPTS)]}?")
        good, bad = (
            [*encode(" ".join(draw.choice(words, 3))), 2] for words in (GOOD_WORDS, BAD_WORDS)
        )
        if kind == "pairs":
            made.append(Sequence.joined(side(prompt, good, 1), side(prompt, bad, 0)))
        else:
            label = index % 2
            answer, other = (good, bad) if label else (bad, good)
            made.append(Sequence.joined(side(prompt, answer, label), side(prompt, other, 2)))
    return made


def packed(units: list[Sequence], each: int) -> list[Sequence]:
    """So many units in every sequence."""
    return [Sequence.joined(*units[at : at + each]) for at in range(0, len(units), each)]


def prepared_of(
    folder: Path, train: list[Sequence], validation: list[Sequence] = ()
) -> PreparedDataset:
    """A prepared data set on disk."""
    folder.mkdir(parents=True)
    for name, split in (("train", train), ("validation", validation)):
        columns = {
            "input_ids": list_array([s.input_ids for s in split], pa.int32()),
            "supervised": list_array([s.supervised for s in split], pa.uint8()),
            "row_lengths": list_array([s.row_lengths for s in split], pa.int32()),
            "row_kinds": list_array([s.row_kinds for s in split], pa.int8()),
        }
        table = pa.table(columns)
        with pa.ipc.new_file(str(folder / f"{name}.arrow"), table.schema) as file:
            file.write_table(table)
    (folder / "ledger.json").write_text(json.dumps({"packs": len(train)}))
    return PreparedDataset.open(folder)


def samples_of(units: list[Sequence]) -> list[Sample]:
    """The first row of every unit, as kept for verification."""
    return [
        Sample("", [], [], "", row.input_ids.tolist(), row.supervised.tolist(), 0)
        for row in (unit.row(0) for unit in units)
    ]
