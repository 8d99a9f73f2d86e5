"""Pairs and labelled answers in, units of sequences out, for the tests of preference data."""

from dataclasses import dataclass
from typing import Any

from data_prep.prepared import PreparedDataset


def pair(number: int, chosen: str = "", rejected: str = "") -> dict[str, Any]:
    """A good pair, different for every number and of different lengths."""
    return {
        "conversations": [{"from": "human", "value": f"What is {number} plus one?"}],
        "chosen": {"from": "gpt", "value": chosen or f"It is {number + 1}." + " Yes." * number},
        "rejected": {"from": "gpt", "value": rejected or f"It is {number}. " + "No." * number},
    }


def labelled(number: int, label: bool | None = None, answer: str = "") -> dict[str, Any]:
    """A labelled answer, different for every number; every second one is good."""
    return {
        "messages": [
            {"role": "user", "content": f"What is {number} plus one?"},
            {"role": "assistant", "content": answer or f"It is {number + 1}." + " Yes." * number},
        ],
        "label": number % 2 == 0 if label is None else label,
    }


@dataclass(frozen=True)
class Written:
    """One row of a sequence, as training reads it."""

    pack: int
    kind: int | None
    where: str
    ids: list[int]
    supervised: list[int]

    @property
    def prompt(self) -> list[int]:
        """What comes before the first supervised token."""
        return self.ids[: self.supervised.index(1)]

    @property
    def answer(self) -> list[int]:
        """What comes from there on."""
        return self.ids[self.supervised.index(1) :]


def written(prepared: PreparedDataset, split: str = "train") -> list[Written]:
    """Every row of a split, in order."""
    found = []
    for number, each in enumerate(prepared.sequences(split).to_pylist()):
        kinds = each.get("row_kinds") or [None] * len(each["rows"])
        assert len(kinds) == len(each["rows"]) == len(each["row_lengths"])
        begin = 0
        for kind, where, length in zip(kinds, each["rows"], each["row_lengths"], strict=True):
            part = slice(begin, begin + length)
            row = Written(number, kind, where, each["input_ids"][part], each["supervised"][part])
            found.append(row)
            begin += length
        assert begin == len(each["input_ids"]) == len(each["supervised"])
    return found


def units_of(prepared: PreparedDataset, split: str = "train") -> list[tuple[Written, Written]]:
    """Neighbouring rows, two by two; they are in one pack and have one prompt."""
    rows = written(prepared, split)
    units = list(zip(rows[::2], rows[1::2], strict=True))
    for one, other in units:
        assert one.pack == other.pack
        assert one.where == other.where
        assert one.prompt == other.prompt
    return units
