"""Tables as text."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_files import places, read_all, values

from data_prep.errors import DataError
from data_prep.sources.csv_table import scan_csv
from data_prep.sources.records import BadRecord, Record


def write(tmp_path: Path, content: bytes, name: str = "r.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("content", [b"", b"\n\r\n", b"instruction,output\r\n"])
def test_a_file_with_nothing_but_a_header_has_no_records(tmp_path: Path, content: bytes):
    assert read_all(write(tmp_path, content)) == []


def test_rows_with_too_few_or_too_many_fields_are_answered(tmp_path: Path):
    path = write(tmp_path, b'a,b\n1,2\n3\n4,5,6\n"7\n7",8\n')
    whole, few, many, two_lines = read_all(path)
    assert whole == Record(f"{path}:2", {"a": "1", "b": "2"})
    assert few == BadRecord(f"{path}:3", "fewer fields than the header names")
    assert many == BadRecord(f"{path}:4", "more fields than the header names")
    assert two_lines.value == {"a": "7\n7", "b": "8"}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_places_count_lines_through_quoted_ones_and_blank_ones(tmp_path: Path, end: str):
    lines = ["", "a,b", '"1', '1",2', "", "", "3,4", "5,6"]
    path = write(tmp_path, end.join(lines).encode())
    assert values(path) == [
        {"a": f"1{end}1", "b": "2"}, {"a": "3", "b": "4"}, {"a": "5", "b": "6"}
    ]  # fmt: skip
    assert places(path) == [f"{path}:3", f"{path}:7", f"{path}:8"]


def test_tabs_part_the_fields_of_a_tsv_file(tmp_path: Path):
    path = write(tmp_path, b'a\tb,c\n1\t"2\t3"\n', "r.tsv")
    assert values(path) == [{"a": "1", "b,c": "2\t3"}]


def test_commas_in_a_file_of_tabs_are_refused_unless_there_are_tabs_too(tmp_path: Path):
    with pytest.raises(DataError, match=r"by tabs; if commas are meant, end its name in \.csv"):
        read_all(write(tmp_path, b"a,b\n1,2\n", "r.tsv"))
    assert values(write(tmp_path, b'"a,b"\n1\n')) == [{"a,b": "1"}]


def test_rows_that_are_not_text_are_answered_and_reading_goes_on(tmp_path: Path):
    path = write(tmp_path, b'a,b\n1,2\n\xe9,4\n"5\nx\0y",6\n7,8\n')
    first, latin, nul, last = read_all(path)
    assert latin.where == f"{path}:3"
    assert latin.problem.startswith("not UTF-8: invalid continuation byte at byte 0 of line 3; ")
    assert nul == BadRecord(f"{path}:4", "not text: a NUL character at byte 1 of line 5")
    assert [first.value, last.value] == [{"a": "1", "b": "2"}, {"a": "7", "b": "8"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'a,b\n1,2\n"x"y,4\n', r"r\.csv:3: cannot be read as CSV: .* is written twice \(\"\"\)"),
        (b'a,b\n1,2\n"say \\"x\\"",4\n', r"r\.csv:3: cannot .* is written twice \(\"\"\)"),
        (
            b'a,b\n1,2\n3,"never closed\n4,5\n',
            r"r\.csv:4: .*row of line 3: is a quote never closed\?",
        ),
        (b"a,b,a\n1,2,3\n", r"several columns are named 'a'"),
        (b"a,\xe9\n1,2\n", r"r\.csv:1: in the names of the columns: not UTF-8: "),
        (
            b"\na;b\n1;2\n",
            r"r\.csv:2: .* named 'a;b'.*if semicolons are meant, rewrite it with com",
        ),
        (b"a|b\n1|2\n", r"if bars are meant, rewrite it with commas"),
        (b"a\tb\n1\t2\n", r"if tabs are meant, end its name in \.tsv"),
    ],
)
def test_a_file_that_cannot_be_read_as_a_whole_is_refused(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read_all(write(tmp_path, content))


def test_a_quote_that_is_never_closed_does_not_fill_the_memory(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("data_prep.sources.csv_table.LONGEST_FIELD", 1000)
    path = write(tmp_path, b'a,b\n1,2\n3,"4\n' + b"5,6\n" * 1000)
    with pytest.raises(
        DataError, match=r"field limit.*in the row of line 3: is a quote never closed\?"
    ):
        read_all(path)


def test_a_field_of_ten_megabytes_is_read(tmp_path: Path):
    assert values(write(tmp_path, b"a\n" + b"x" * 10_000_000 + b"\n")) == [{"a": "x" * 10_000_000}]


cells = st.text(alphabet='ab,"\n\r\t é\u2028', max_size=6)


@given(rows=st.lists(st.tuples(cells, cells), max_size=5), size=st.integers(1, 9))
def test_a_table_is_the_same_in_blocks_of_any_size(rows, size):
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("one", "two"), *rows])
    content = text.getvalue().encode()
    blocks = [content[start : start + size] for start in range(0, len(content), size)]
    found = [raw.content for raw in scan_csv("r.csv", blocks, ",")]
    assert found == [{"one": one, "two": two} for one, two in rows]
