import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from source_files import ROWS, places, read_all, save, texts, values

from data_prep.errors import DataError
from data_prep.sources.config import SourceConfig
from data_prep.sources.parsing import parse_record
from data_prep.sources.records import BadRecord, Record
from data_prep.sources.scan import read, scan

KINDS = ["r.json", "r.jsonl", "r.ndjson", "r.csv", "r.tsv", "r.txt"]


@pytest.mark.parametrize("name", [*KINDS[:5], "r.parquet", "R.JSONL"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, name: str):
    path = save(tmp_path / name.lower(), ROWS).rename(tmp_path / name)
    assert values(path) == ROWS


@pytest.mark.parametrize("name", ["r.json", "r.jsonl", "r.csv"])
def test_a_byte_order_mark_is_not_part_of_the_first_row(tmp_path: Path, name: str):
    path = save(tmp_path / name, ROWS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert values(path) == ROWS


def test_places_name_the_line_or_the_index(tmp_path: Path):
    lines = save(tmp_path / "r.jsonl", ROWS)
    array = save(tmp_path / "r.json", ROWS)
    assert [r.where for r in read_all(lines)] == [f"{lines}:1", f"{lines}:2"]
    assert [r.where for r in read_all(array)] == [f"{array}[0]", f"{array}[1]"]


def test_blank_lines_are_no_rows_but_count_as_lines(tmp_path: Path):
    path = tmp_path / "r.jsonl"
    path.write_text('\n{"a": 1}\n  \r\n\n{"a": 2}', encoding="utf-8")
    assert [r.where for r in read_all(path)] == [f"{path}:2", f"{path}:5"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"a": 1', "not JSON: "),
        (b'{"a": 1} trailing', "Extra data"),
        (
            b"[1, 2]",
            "not a JSON object but a list; a file that is one array wants the ending .json",
        ),
        (b"[", "not JSON: Expecting value (column 2); a file that is one value over many lines"),
        (b"null", "not a JSON object but null"),
        (b'"text"', "not a JSON object but text"),
        (b'{"a": "\xff"}', "not UTF-8: invalid start byte at byte 7"),
        (b'{"a": NaN}', "NaN and Infinity are not allowed"),
        (b'{"a": [-Infinity]}', "NaN and Infinity are not allowed"),
        (b'{"a": "\\ud800"}', "\\ud800 alone is half a character"),
        (b'{"a": {"\\uDFFF": 1}}', "\\udfff alone is half a character"),
        (b"[" * 100_000, "not JSON: "),
        (b'{"a": ' + b"1" * 5000 + b"}", "not JSON: "),
        ("\ufeff{}".encode(), "not JSON: "),
    ],
)
def test_a_line_that_cannot_be_read_is_answered_and_reading_goes_on(tmp_path, line, problem):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
    first, bad, last = read_all(path)
    assert isinstance(first, Record)
    assert isinstance(last, Record)
    assert isinstance(bad, BadRecord)
    assert bad.where == f"{path}:2"
    assert problem in bad.problem


def test_an_escaped_pair_of_surrogates_is_text(tmp_path: Path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"a": "\\ud83d\\ude00"}', encoding="utf-8")
    assert values(path) == [{"a": "\U0001f600"}]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("r.xlsx", r"files of kind '\.xlsx' cannot be read\. Allowed: \.json, \.jsonl, "),
        ("r", r"files of kind '' cannot be read"),
        ("r.gz", r"files of kind '\.gz' cannot be read\. Allowed: .* also with \.gz or \.zst"),
        ("r.jsonl.bz2", r"files of kind '\.bz2' cannot be read"),
    ],
)
def test_a_file_of_an_unknown_kind_is_refused(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"text")
    with pytest.raises(DataError, match=message):
        read_all(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"\n\n  \n", b"\xef\xbb\xbf"])
def test_an_empty_file_of_lines_has_no_records(tmp_path: Path, content: bytes):
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)
    assert read_all(path) == []


def test_a_file_that_may_not_be_opened_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "r.jsonl", ROWS)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"r\.jsonl: cannot be read: Permission denied"):
        read_all(path)


@settings(max_examples=60)
@given(
    content=st.binary(max_size=60),
    suffix=st.sampled_from(
        ["json", "jsonl", "csv", "tsv", "txt", "parquet", "json.gz", "jsonl.zst", "csv.gz"]
    ),
)
def test_any_bytes_are_records_or_a_data_error(tmp_path_factory, content, suffix):
    path = tmp_path_factory.getbasetemp() / f"any.{suffix}"
    path.write_bytes(content)
    try:
        assert all(isinstance(r, Record | BadRecord) for r in read_all(path))
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017 (records are as right)


@given(rows=st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3)))
def test_json_lines_round_trip(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "trip.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = read_all(path)
    for row, record in zip(rows, found, strict=True):
        lonely = any("\ud800" <= c <= "\udfff" for text in (*row, *row.values()) for c in text)
        assert isinstance(record, BadRecord) if lonely else dict(record.value) == row


@pytest.mark.parametrize("line", ['{"a": 1, "a": 2}', '{"a": {"b": 1, "b": 1}}', '{"a": 1e999}'])
def test_what_pythons_json_would_lose_is_a_bad_record(tmp_path: Path, line: str):
    (tmp_path / "r.jsonl").write_text(line, encoding="utf-8")
    (bad,) = read_all(tmp_path / "r.jsonl")
    assert isinstance(bad, BadRecord)
    (tmp_path / "r.json").write_text(f'[{line}, {{"a": 1}}]', encoding="utf-8")
    bad, good = read_all(tmp_path / "r.json")
    assert isinstance(bad, BadRecord)
    assert isinstance(good, Record)


def test_what_a_scan_finds_can_be_parsed_in_another_process(tmp_path: Path):
    for name in (*KINDS[:5], "r.parquet"):
        source = SourceConfig(path=str(save(tmp_path / name, ROWS)))
        there = [parse_record(pickle.loads(pickle.dumps(raw))) for raw in scan(source)]
        assert there == list(read(source))


def test_lines_are_not_parsed_before_they_are_asked_for(tmp_path: Path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"a": 1}\nno json\r\n', encoding="utf-8")
    found = list(scan(SourceConfig(path=str(path))))
    assert found == [(f"{path}:1", b'{"a": 1}', "json"), (f"{path}:2", b"no json", "json")]


def test_skip_and_take_count_rows_that_cannot_be_read_too(tmp_path: Path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"a": 1}\nbad\n\n{"a": 2}\n{"a": 3}\n', encoding="utf-8")
    lines = [f"{path}:{number}" for number in (1, 2, 4, 5)]
    assert places(path) == lines
    assert places(path, take=2) == lines[:2]
    assert places(path, skip=1, take=2) == lines[1:3]
    assert places(path, skip=2) == lines[2:]
    assert places(path, skip=9) == []


def test_skip_and_take_count_through_several_files(tmp_path: Path):
    for name in "abc":
        save(tmp_path / f"{name}.txt", [{"text": f"{name}{n}"} for n in range(3)])
    assert texts(tmp_path, skip=2, take=5) == ["a2", "b0", "b1", "b2", "c0"]


def test_what_comes_after_take_is_not_looked_at(tmp_path: Path):
    path = tmp_path / "r.json"
    path.write_text('[{"a": 1}, broken', encoding="utf-8")
    assert values(path, take=1) == [{"a": 1}]
    with pytest.raises(DataError, match="not JSON"):
        read_all(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"skip": -1}, "greater than or equal to 0"),
        ({"take": 0}, "greater than or equal to 1"),
        ({"weight": 0}, "greater than 0"),
        ({"weight": float("inf")}, "finite"),
        ({"group": ""}, "at least 1 character"),
        ({"text_unit": "page"}, "'line', 'paragraph' or 'file'"),
        ({"text_unit": "file"}, r"is for \.txt files, and r\.jsonl is none"),
        ({"streaming": True}, r"is for hub data sets, and r\.jsonl is a file"),
        ({"name": "en"}, r"is for hub data sets, and r\.jsonl is a file"),
        ({"revision": "v1"}, r"is for hub data sets, and r\.jsonl is a file"),
        ({"split": "test"}, r"is for hub data sets, and r\.jsonl is a file"),
        ({"columns": []}, "Extra inputs"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        SourceConfig(path="r.jsonl", **settings)
    assert SourceConfig(path="r.jsonl", text_unit="line", split="train", streaming=False)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("", {"streaming": True}, "streaming is for hub data sets; these are files"),
        ("*.j*", {"split": "test"}, "split is for hub data sets; these are files"),
        ("", {"text_unit": "file"}, r"text_unit is for \.txt files, and there are none"),
    ],
)
def test_settings_that_the_files_found_make_meaningless_are_refused(
    tmp_path, name, settings, message
):
    save(tmp_path / "r.jsonl", ROWS)
    with pytest.raises(DataError, match=message):
        read_all(tmp_path / name, **settings)
