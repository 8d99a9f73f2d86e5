"""Packed sequences on disk: what was packed, gathered from shards of any size."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import sequences
from data_prep.columns import ListColumn, list_array
from data_prep.packing import alone, pack
from data_prep.prepared import PreparedDataset
from data_prep.sequences import pieces_of, write_sequences
from data_prep.shards import Rows, Shards

ROOT = Path(__file__).parents[2]
TOKENS = st.lists(st.tuples(st.integers(0, 2**31 - 1), st.booleans()), min_size=1, max_size=20)
ROW = st.lists(TOKENS, max_size=3)
"""The pieces of one row; a dropped one has none."""


def in_shards(folder: Path, rows: list[list[list[tuple[int, bool]]]], size: int) -> Rows:
    shards = Shards(folder)
    for number, start in enumerate(range(0, len(rows), size)):
        part = rows[start : start + size]
        joined = [[pair for piece in row for pair in piece] for row in part]
        columns = {
            "where": pa.array([f"rows.jsonl:{start + i + 1}" for i in range(len(part))]),
            "pieces": list_array([[len(piece) for piece in row] for row in part], pa.int32()),
            "ids": list_array([[token for token, _ in row] for row in joined], pa.int32()),
            "supervised": list_array([[flag for _, flag in row] for row in joined], pa.uint8()),
        }
        shards.write(number, pa.table(columns), {})
    return Rows(shards, shards.count())


@given(st.lists(ROW, min_size=1, max_size=20), st.integers(1, 7), st.booleans(), st.data())
def test_what_is_read_is_what_was_packed(tmp_path_factory, rows, size, packing, data):
    folder = tmp_path_factory.mktemp("sequences")
    chosen = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=25)), np.int64)
    stored = in_shards(folder / "rows", rows, size)
    pieces = pieces_of(stored, chosen)
    wanted = [(row, piece) for row in chosen.tolist() for piece in rows[row]]
    assert pieces.tokens.tolist() == [len(piece) for _, piece in wanted]
    packs = pack(pieces.tokens, 24) if packing else alone(pieces.tokens)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequences, "WRITE_TOKENS", 30)
        write_sequences(folder / "train.arrow", stored, pieces, packs)
    read = PreparedDataset(folder, {}).sequences("train").to_pylist()
    assert read == [
        {
            "input_ids": [token for each in members for token, _ in wanted[each][1]],
            "supervised": [int(flag) for each in members for _, flag in wanted[each][1]],
            "row_lengths": [len(wanted[each][1]) for each in members],
            "rows": [f"rows.jsonl:{wanted[each][0] + 1}" for each in members],
        }
        for members in (each.tolist() for each in packs)
    ]


def test_shards_of_any_size_give_the_same_bytes(tmp_path: Path):
    rows = [[[(n, n % 3 == 0)] * (n % 17 + 1)] for n in range(600)]
    written = []
    for size in (7, 600):
        stored = in_shards(tmp_path / str(size), rows, size)
        pieces = pieces_of(stored, np.arange(600))
        write_sequences(tmp_path / f"{size}.arrow", stored, pieces, pack(pieces.tokens, 32))
        written.append((tmp_path / f"{size}.arrow").read_bytes())
    assert written[0] == written[1]


def test_lists_are_views_also_of_sliced_and_empty_columns():
    lists = [[1, 2], [], [3], [4, 5, 6]]
    array = list_array(lists, pa.int32())
    column = pa.chunked_array([array.slice(1, 2), array.slice(0, 0), array.slice(3)])
    found = ListColumn(column)
    assert [values.tolist() for values in found] == [[], [3], [4, 5, 6]]
    assert all(np.shares_memory(values, array.values.to_numpy()) for values in found if len(values))
    assert len(ListColumn(pa.chunked_array([], pa.list_(pa.int32())))) == 0
    for index in (-1, 3):
        with pytest.raises(IndexError):
            found[index]


WRITE = """
import sys, tracemalloc
from pathlib import Path
import numpy as np, pyarrow as pa
from data_prep import sequences
from data_prep.packing import pack
from data_prep.shards import Rows, Shards
sequences.WRITE_TOKENS = 20_000
folder = Path(sys.argv[1])
shards = Shards(folder / "rows")
rows = Rows(shards, shards.count())
pieces = sequences.pieces_of(rows, np.arange(len(rows)))
packs = pack(pieces.tokens, 1000)
before = pa.default_memory_pool().max_memory()
tracemalloc.start()
sequences.write_sequences(folder / "train.arrow", rows, pieces, packs)
print(pa.default_memory_pool().max_memory() - before + tracemalloc.get_traced_memory()[1])
"""


def test_a_piece_of_a_long_row_does_not_bring_the_row_into_memory(tmp_path: Path):
    in_shards(tmp_path / "rows", [[[(7, True)] * 990] * 60 + [[(7, True)] * 90]] * 50, 10)
    command = [sys.executable, "-c", WRITE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    tokens = 50 * (60 * 990 + 90)
    assert int(done.stdout) < tokens * 5 / 2, "half of the rows' tokens and masks"
