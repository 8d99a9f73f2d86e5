"""Plain text, and the lines that all line formats are made of."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_files import places, read_all, texts, values

from data_prep.errors import DataError
from data_prep.sources.lines import split_lines
from data_prep.sources.records import BadRecord

POEM = "  One \n two\n\n \t\n\nthree\r\nfour\rfive"


@pytest.fixture
def poem(tmp_path: Path) -> Path:
    (tmp_path / "poem.txt").write_bytes(POEM.encode())
    return tmp_path / "poem.txt"


def test_a_record_is_a_line_and_blank_lines_are_none(poem: Path):
    assert texts(poem) == ["  One ", " two", "three", "four", "five"]
    assert places(poem) == [f"{poem}:{line}" for line in (1, 2, 6, 7, 8)]


def test_a_record_may_be_a_paragraph(poem: Path):
    assert texts(poem, text_unit="paragraph") == ["  One \n two", "three\nfour\nfive"]
    assert places(poem, text_unit="paragraph") == [f"{poem}:1", f"{poem}:6"]


def test_a_record_may_be_a_file(poem: Path):
    assert texts(poem, text_unit="file") == ["  One \n two\n\n \t\n\nthree\nfour\nfive"]
    (poem.parent / "next.txt").write_text("\n\nsix\n\n")
    (poem.parent / "nothing.txt").write_text(" \n\n")
    assert texts(poem.parent, text_unit="file") == ["six", texts(poem, text_unit="file")[0]]
    assert places(poem.parent, text_unit="file")[0] == f"{poem.parent}/next.txt:3"


@pytest.mark.parametrize("unit", ["line", "paragraph", "file"])
def test_what_is_not_text_is_answered(tmp_path: Path, unit: str):
    path = tmp_path / "r.txt"
    path.write_bytes(b"ab\xff")
    (bad,) = read_all(path, text_unit=unit)
    assert bad.where == f"{path}:1"
    assert bad.problem.startswith("not UTF-8: invalid start byte at byte 2; ")
    path.write_bytes(b"abc\0")
    assert read_all(path, text_unit=unit) == [
        BadRecord(f"{path}:1", "not text: a NUL character at character 3")
    ]


def test_a_record_that_would_fill_the_memory_is_refused(poem: Path, monkeypatch):
    monkeypatch.setattr("data_prep.sources.plain_text.LONGEST", 10)
    with pytest.raises(
        DataError, match=r"a file of more than 10 bytes; .*\. Choose a smaller text_unit\."
    ):
        read_all(poem, text_unit="file")


@given(content=st.binary(max_size=40), cuts=st.lists(st.integers(0, 40), max_size=6))
def test_lines_are_the_same_in_blocks_of_any_size(content, cuts):
    edges = sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
    blocks = [content[a:b] for a, b in pairwise(edges)]
    assert list(split_lines(blocks)) == content.splitlines(keepends=True)


@given(letters=st.text(alphabet="\r\na\u2028\x0b\x0c\x1c\x85", max_size=12), size=st.integers(1, 5))
def test_only_carriage_returns_and_line_feeds_end_lines(letters, size):
    content = letters.encode()
    blocks = [content[start : start + size] for start in range(0, len(content), size)]
    lines = list(split_lines(blocks))
    ends = letters.replace("\r\n", "\n").replace("\r", "\n").count("\n")
    assert len(lines) == ends + bool(content and not content.endswith((b"\r", b"\n")))
    assert b"".join(lines) == content


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", ["", "end"])
def test_json_lines_may_end_in_any_way(tmp_path: Path, end: str, last: str):
    path = tmp_path / "r.jsonl"
    text = end.join(['{"a": 1}', "", '{"a": "\u2028"}']) + (end if last else "")
    path.write_bytes(text.encode())
    assert values(path) == [{"a": 1}, {"a": "\u2028"}]
    assert places(path) == [f"{path}:1", f"{path}:3"]


def test_a_line_of_ten_megabytes_is_read(tmp_path: Path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"a": "' + "x" * 10_000_000 + '"}\n{"a": 1}\n')
    long, short = values(path)
    assert len(long["a"]) == 10_000_000
    assert short == {"a": 1}


def test_a_file_that_is_not_made_of_lines_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("data_prep.sources.lines.LONGEST", 100)
    path = tmp_path / "r.jsonl"
    path.write_text("{}\n" + "[" * 1_000_000)
    with pytest.raises(DataError, match=r"a line of more than 100 bytes; .*\. An array .* \.json"):
        read_all(path)
