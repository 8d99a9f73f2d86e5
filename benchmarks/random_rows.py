"""Rows of random tokens, as many as fill a number of packs, for two tools to train on.

Lengths are lognormal, as those of conversations are. Random tokens teach nothing, so the loss stays
at that of a guess; what a row costs depends on its length alone.
"""

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

MEDIAN, SPREAD = 0.15, 1.0
"""Median length as a share of the longest, and the deviation of its logarithm."""
SHORTEST = 8
PROMPT = 0.4
"""The share of a row that is prompt and carries no loss."""


@dataclass(frozen=True)
class RandomRows:
    """Rows, one after the other."""

    ids: NDArray[np.int32]
    """Of all tokens."""
    supervised: NDArray[np.bool_]
    """As long as ``ids``. The first token of a row never is."""
    lengths: NDArray[np.int64]
    packs: list[NDArray[np.int64]]
    """The rows of every pack that llmkit makes of them."""

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each row begins in ``ids``."""
        return np.cumsum(self.lengths) - self.lengths

    def each(self) -> list[tuple[NDArray[np.int32], NDArray[np.bool_]]]:
        """Ids and mask of every row."""
        ends = np.cumsum(self.lengths)[:-1]
        return list(zip(np.split(self.ids, ends), np.split(self.supervised, ends), strict=True))


def draw(vocabulary: int, longest: int, packs: int, seed: int) -> RandomRows:
    """As many rows as best fill ``packs`` packs of ``longest`` tokens, by llmkit's packing."""
    generator = np.random.default_rng(seed)
    median = np.log(MEDIAN * longest)
    drawn = generator.lognormal(median, SPREAD, size=packs * longest // SHORTEST)
    lengths = np.clip(drawn, SHORTEST, longest).astype(np.int64)
    count = int(np.searchsorted(np.cumsum(lengths), packs * longest, side="right"))
    while len(packed := _packed(lengths[:count], longest)) > packs:
        count -= 1
    lengths = lengths[:count]
    ids = generator.integers(3, vocabulary, int(lengths.sum())).astype(np.int32)
    prompts = np.maximum(1, (PROMPT * lengths).astype(np.int64))
    inside = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return RandomRows(ids, inside >= np.repeat(prompts, lengths), lengths, packed)


def write_prepared(rows: RandomRows, folder: Path) -> None:
    """Write their packs as llmkit's training reads them; nothing is held out."""
    import pyarrow as pa

    from data_prep.columns import list_array

    folder.mkdir(parents=True, exist_ok=True)
    parts = rows.each()
    for split, packs in (("train", rows.packs), ("validation", [])):
        columns = {
            "input_ids": [np.concatenate([parts[row][0] for row in each]) for each in packs],
            "supervised": [np.concatenate([parts[row][1] for row in each]) for each in packs],
            "row_lengths": [rows.lengths[each] for each in packs],
        }
        kinds = {"input_ids": pa.int32(), "supervised": pa.uint8(), "row_lengths": pa.int32()}
        table = pa.table({name: list_array(columns[name], kinds[name]) for name in columns})
        with pa.ipc.new_file(str(folder / f"{split}.arrow"), table.schema) as file:
            file.write_table(table)


def _packed(lengths: NDArray[np.int64], longest: int) -> list[NDArray[np.int64]]:
    """The rows of every pack, as llmkit packs them."""
    if "numba" not in sys.modules and find_spec("numba") is None:
        sys.modules["numba"] = _uncompiled()
    from data_prep.packing import pack

    return list(pack(lengths, longest))


def _uncompiled() -> ModuleType:
    """What stands in for numba where it is not installed: packing runs as plain Python.

    Slow, and the same packs: as numba itself does with NUMBA_DISABLE_JIT.
    """

    def njit(*functions: Any, **_: Any) -> Any:
        return functions[0] if functions else lambda function: function

    module = ModuleType("numba")
    vars(module)["njit"] = njit
    return module
