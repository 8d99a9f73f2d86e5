"""JSON arrays, read an element at a time."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_files import read_all, values

from data_prep.errors import DataError
from data_prep.sources.json_array import scan_json
from data_prep.sources.records import BadRecord, Record


def scanned(content: bytes, size: int) -> tuple[list[object], str]:
    """What comes of a file in blocks of so many bytes: values and problems, and the error."""
    blocks = [content[start : start + size] for start in range(0, len(content), size)]
    found: list[object] = []
    try:
        found += (raw.content for raw in scan_json("r.json", blocks))
    except DataError as error:
        return found, str(error)
    return found, ""


numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | numbers | st.text(max_size=8)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
objects = st.dictionaries(st.text(max_size=4), trees, max_size=4)


@given(
    rows=st.lists(objects, max_size=6),
    size=st.integers(1, 40),
    indent=st.sampled_from([None, 0, 2]),
    ascii_only=st.booleans(),
)
def test_an_array_is_the_same_in_blocks_of_any_size(rows, size, indent, ascii_only):
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only)
    content = text.encode(errors="replace")
    assert scanned(content, size) == (json.loads(content), "")


@given(row=objects, size=st.integers(1, 9), cut=st.integers(0, 10**6), junk=st.sampled_from(
    [b"", b"}", b"]", b",", b'"', b"\\", b"1", b"-", b"tru", b"\\u12", b"\x00", b"[{}]", b" "]
))  # fmt: skip
def test_an_error_is_found_at_the_same_place_in_blocks_of_any_size(row, size, cut, junk):
    content = json.dumps([row, {"a": [1.5e3, True, None, "\\ \u00e9 \U0001f600"]}]).encode()
    cut %= len(content)
    broken = content[:cut] + junk + content[cut:][len(junk) :]
    assert scanned(broken, size) == scanned(broken, len(broken))


@settings(max_examples=50)
@given(
    text=st.text(alphabet='[]{},:"\\ u123.eE+-truefalsnNIy\n', max_size=30), size=st.integers(1, 9)
)
def test_what_is_no_array_of_json_is_refused_and_nothing_else_is(text, size):
    found, error = scanned(text.encode(), size)
    if not text.strip():
        assert (found, error) == ([], "")
        return
    try:
        whole = json.loads(text)
    except ValueError:
        assert error.startswith("r.json")
    else:
        assert bool(error) == (not isinstance(whole, list))
        assert len(found) == (len(whole) if isinstance(whole, list) else 0)


@pytest.mark.parametrize("number", ["-12.5e+10", "123456789012345678901234567890", "0.5", "-0"])
def test_a_number_is_never_cut_where_a_block_ends(number):
    for size in range(1, 30):
        found, error = scanned(f"[{{}}, {number}, {{}}]".encode(), size)
        assert error == ""
        assert found == [{}, "not a JSON object but a number", {}]


def test_items_that_are_no_rows_are_answered(tmp_path: Path):
    path = tmp_path / "r.json"
    path.write_text('[{"a": 1}, 5, {"a": NaN}, {"a": "\\ud800"}]', encoding="utf-8")
    good, number, constant, surrogate = read_all(path)
    assert isinstance(good, Record)
    assert number == BadRecord(f"{path}[1]", "not a JSON object but a number")
    assert constant.where == f"{path}[2]"
    assert "NaN" in constant.problem
    assert "half a character" in surrogate.problem


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"a": 1},\n {"a": }]', r"r\.json:2: not JSON: .*column 8"),
        (b'[{"a": 1},\n {"a": 2}', r"r\.json:2: not JSON: Expecting ',' delimiter"),
        (b'[{"a": 1},\n]', r"r\.json:2: not JSON"),
        (b'[{"a": 1}]\n\n []', r"r\.json:3: not JSON: Extra data \(column 2\)"),
        (b'{"a": 1}\n{"a": 2}\n', r"r\.json:2: .*wants the ending \.jsonl"),
        (
            b'{"a": 1}',
            r"expected a JSON array of objects, found an object\. If that is a row, .* \.jsonl",
        ),
        (
            b'{"n": 1, "data": [{"a": 1}]}',
            r"its 'data' is one: jq -c '\.\[\"data\"\]\[\]' OLD > NEW\.jsonl",
        ),
        (b'{"messages": [{"role": "user"}], "n": 1}', r"If that is a row, .* \.jsonl"),
        (b'{"a": {"0": "x"}, "b": {"0": "y"}}', r"As columns\? .*to_json\(orient='records', lines"),
        (b"NaN", r"found what JSON does not allow"),
        (b"{}", r"found an object\.$"),
        (b"null", r"found null\.$"),
        (b'[\n\n"\xff"]', r"r\.json:3: not UTF-8"),
        (b'[{"a": "\xc3', r"r\.json:1: not UTF-8: unexpected end of data"),
        (b"[" * 100_000, r"r\.json: cannot be read as JSON"),
        (b"[" + b"1" * 5000 + b"]", r"r\.json: cannot be read as JSON: .*4300 digits"),
    ],
)
def test_a_file_that_cannot_be_read_as_a_whole_is_refused(tmp_path, content, message):
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_all(path)


@pytest.mark.parametrize("content", [b"", b" \n \n", b"\xef\xbb\xbf", b"[]"])
def test_an_empty_file_has_no_records(tmp_path: Path, content: bytes):
    (tmp_path / "r.json").write_bytes(content)
    assert read_all(tmp_path / "r.json") == []


def test_an_element_longer_than_many_blocks_is_read(tmp_path: Path):
    path = tmp_path / "r.json"
    rows: list[Any] = [{"a": "é" * 5_000_000}, {"a": "b"}]
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    assert values(path) == rows


def test_an_element_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("data_prep.sources.json_array.LONGEST", 1000)
    path = tmp_path / "r.json"
    path.write_text('[{"a": 1},\n["' + "x" * 2_000_000, encoding="utf-8")
    with pytest.raises(DataError, match=r"r\.json:2: a value of more than 1000 characters"):
        read_all(path)
