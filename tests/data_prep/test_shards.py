"""Rows of many shards, taken by their numbers."""

import numpy as np
import pyarrow as pa
import pytest

from data_prep.shards import Rows, Shards


@pytest.fixture
def rows(tmp_path):
    """Seven rows in shards of 3, 0, 1 and 3; each row says its own number."""
    shards, start = Shards(tmp_path), 0
    for number, length in enumerate((3, 0, 1, 3)):
        own = pa.array(range(start, start + length), pa.int64())
        shards.write(number, pa.table({"n": own, "text": own.cast(pa.string())}), {"rows": length})
        start += length
    return Rows(shards, 4)


@pytest.mark.parametrize("wanted", [[], [6], [0, 3, 6], [5, 0, 4, 0, 3, 5], list(range(7))[::-1]])
def test_rows_come_in_the_order_asked_for_as_often_as_asked_for(rows, wanted):
    table = rows.take(np.array(wanted, np.int64), "text", "n")
    assert table.column("n").to_pylist() == wanted
    assert table.column("text").to_pylist() == [str(row) for row in wanted]
    assert table.column_names == ["text", "n"]


def test_a_column_and_its_parts_are_numbered_through(rows):
    assert len(rows) == 7
    assert rows.array("n").tolist() == list(range(7))
    assert [(start, part.num_rows) for start, part in rows.each("n")] == [
        (0, 3),
        (3, 0),
        (3, 1),
        (4, 3),
    ]
