from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import prepared
from data_prep.columns import ListColumn, list_array
from data_prep.packing import alone, pack
from data_prep.prepared import PreparedDataset, token_table, write
from data_prep.rendering import Rendered

TOKENS = st.lists(st.tuples(st.integers(0, 2**31 - 1), st.booleans()), min_size=1, max_size=20)


def named(rows: list[list[tuple[int, bool]]]) -> list[tuple[str, Rendered]]:
    return [
        (f"rows.jsonl:{line}", Rendered([i for i, _ in row], [s for _, s in row], 0))
        for line, row in enumerate(rows, start=1)
    ]


@given(st.lists(TOKENS, max_size=30), st.booleans())
def test_what_is_read_is_what_was_packed(tmp_path_factory, rows, packing):
    folder = tmp_path_factory.mktemp("prepared")
    lengths = [len(row) for row in rows]
    packs = pack(lengths, 24) if packing else alone(lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared, "WRITE_BATCH", 3)
        table = token_table(named(rows))
        write(folder, "train", table, packs)
    read = PreparedDataset(folder, {}).sequences("train").to_pylist()
    assert read == [
        {
            "input_ids": [token for row in rows_of for token, _ in rows[row]],
            "supervised": [int(flag) for row in rows_of for _, flag in rows[row]],
            "row_lengths": [len(rows[row]) for row in rows_of],
            "rows": [f"rows.jsonl:{row + 1}" for row in rows_of],
        }
        for rows_of in (each.tolist() for each in packs)
    ]


def test_the_same_rows_give_the_same_bytes_however_their_table_is_chunked(tmp_path: Path):
    rows = named([[(n, n % 3 == 0)] * (n % 17 + 1) for n in range(600)])
    whole = token_table(rows)
    assert whole["ids"].num_chunks > 1
    packs = pack([len(row.ids) for _, row in rows], 32)
    write(tmp_path, "chunked", whole, packs)
    write(tmp_path, "joined", whole.combine_chunks(), packs)
    files = [(tmp_path / f"{name}.arrow").read_bytes() for name in ("chunked", "joined")]
    assert files[0] == files[1]


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
