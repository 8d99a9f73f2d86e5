import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.errors import DataError
from data_prep.sources.config import SourceConfig
from data_prep.sources.records import BadRecord, Record
from data_prep.sources.scan import read

ROWS = [{"instruction": "ä", "output": "b\nc"}, {"instruction": "c", "output": "d, e"}]


def read_all(path: Path | str, **settings: str) -> list[Record | BadRecord]:
    return list(read(SourceConfig(path=str(path), **settings)))


def values(path: Path | str, **settings: str) -> list[object]:
    found = read_all(path, **settings)
    assert all(isinstance(record, Record) for record in found), found
    return [dict(record.value) for record in found]


def save(path: Path, rows: list[dict[str, str]]) -> Path:
    match path.suffix:
        case ".json":
            path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        case ".csv":
            lines = ["instruction,output"]
            lines += ['"{instruction}","{output}"'.format(**row) for row in rows]
            path.write_text("\r\n".join(lines), encoding="utf-8")
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("name", ["r.json", "r.jsonl", "r.csv", "r.parquet", "R.JSONL"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, name: str):
    path = save(tmp_path / name.lower(), ROWS).rename(tmp_path / name)
    assert values(path) == ROWS


@pytest.mark.parametrize("name", ["r.json", "r.jsonl", "r.csv"])
def test_a_byte_order_mark_is_not_part_of_the_first_row(tmp_path: Path, name: str):
    path = save(tmp_path / name, ROWS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert values(path) == ROWS


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_folder_is_read_as_a_data_set(tmp_path, suffix, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "rows"
    folder.mkdir()
    save(folder / f"train.{suffix}", ROWS)
    save(folder / f"test.{suffix}", ROWS[:1])
    assert values(folder) == ROWS
    assert values(folder, split="test") == ROWS[:1]
    assert read_all(folder)[1].where == f"{folder}/train[1]"
    with pytest.raises(DataError, match=r"rows: .*split 'nothing'"):
        read_all(folder, split="nothing")


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
        (b"[1, 2]", "not a JSON object but list"),
        (b"null", "not a JSON object but NoneType"),
        (b'"text"', "not a JSON object but str"),
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


def test_items_of_an_array_that_are_no_rows_are_answered(tmp_path: Path):
    path = tmp_path / "r.json"
    path.write_text('[{"a": 1}, 5, {"a": NaN}, {"a": "\\ud800"}]', encoding="utf-8")
    good, number, constant, surrogate = read_all(path)
    assert isinstance(good, Record)
    assert number == BadRecord(f"{path}[1]", "not a JSON object but int")
    assert constant.where == f"{path}[2]"
    assert "NaN" in constant.problem
    assert "half a character" in surrogate.problem


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.json", b"", r"r\.json:1: not JSON"),
        ("r.json", b'[{"a": 1},\n {"a": }]', r"r\.json:2: not JSON: .*column 8"),
        ("r.json", b'{"a": 1}\n{"a": 2}\n', r"r\.json:2: .*wants the ending \.jsonl"),
        ("r.json", b'{"a": 1}', r"expected a JSON array of objects, found dict"),
        ("r.json", b'[\n\n"\xff"]', r"r\.json:3: not UTF-8"),
        ("r.json", b"[" * 100_000, r"r\.json: cannot be read as JSON"),
        ("r.csv", b"a,b\n1,2\n\xe9,4\n", r"r\.csv:3: not UTF-8"),
        ("r.csv", b'a,b\n1,2\n"x"y,4\n', r"r\.csv:3: cannot be read as CSV"),
        ("r.csv", b'a,b\n1,2\n3,"never closed\n', r"r\.csv:\d: cannot be read as CSV"),
        ("r.csv", b"a,b,a\n1,2,3\n", r"several columns are named 'a'"),
        ("r.parquet", b"PAR1 no", r"r\.parquet: cannot be read as Parquet"),
        ("r.parquet", b"", r"r\.parquet: cannot be read as Parquet"),
        ("r.txt", b"text", r"files of kind '\.txt' cannot be read\. Allowed: \.json"),
        ("r", b"text", r"files of kind '' cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_as_a_whole_is_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_all(path)


@pytest.mark.parametrize("content", [b"", b"\n\n  \n", b"\xef\xbb\xbf"])
def test_an_empty_file_of_lines_has_no_records(tmp_path: Path, content: bytes):
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)
    assert read_all(path) == []


@pytest.mark.parametrize("content", [b"", b"instruction,output\r\n"])
def test_a_csv_file_with_nothing_but_a_header_has_no_records(tmp_path: Path, content: bytes):
    path = tmp_path / "r.csv"
    path.write_bytes(content)
    assert read_all(path) == []


def test_csv_rows_with_too_few_or_too_many_fields_are_answered(tmp_path: Path):
    path = tmp_path / "r.csv"
    path.write_text('a,b\n1,2\n3\n4,5,6\n"7\n7",8\n', encoding="utf-8")
    whole, few, many, two_lines = read_all(path)
    assert whole == Record(f"{path}:2", {"a": "1", "b": "2"})
    assert few == BadRecord(f"{path}:3", "fewer fields than the header names")
    assert many == BadRecord(f"{path}:4", "more fields than the header names")
    assert two_lines.value == {"a": "7\n7", "b": "8"}


def test_parquet_columns_of_one_name_are_refused(tmp_path: Path):
    batch = pa.RecordBatch.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["a", "a"])
    pq.write_table(pa.Table.from_batches([batch]), tmp_path / "r.parquet")
    with pytest.raises(DataError, match="several columns are named 'a'"):
        read_all(tmp_path / "r.parquet")


def test_parquet_text_that_is_not_utf8_is_refused(tmp_path: Path):
    offsets = pa.array([0, 2], pa.int32()).buffers()[1]
    text = pa.StringArray.from_buffers(1, offsets, pa.py_buffer(b"\xff\xfe"))
    pq.write_table(pa.table({"a": text}), tmp_path / "r.parquet")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_all(tmp_path / "r.parquet")


@pytest.mark.parametrize(
    "path", ["missing.jsonl", "data/missing.json", "missing", "a/b/c", "./x", "x" * 5000]
)
def test_a_missing_file_is_refused_without_asking_the_hub(path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(DataError, match=r"no such file|cannot be read"):
        read_all(path)


@pytest.mark.parametrize("path", ["nobody/nothing", "teknium/OpenHermes-2.5", "a/b.v2"])
def test_a_hub_id_that_cannot_be_loaded_is_refused(path, monkeypatch):
    import datasets

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no network here")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(DataError, match=rf"{path}: .*ConnectionError: no network here"):
        read_all(path)


def test_a_file_that_may_not_be_opened_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "r.jsonl", ROWS)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"r\.jsonl: cannot be read: Permission denied"):
        read_all(path)


@settings(max_examples=60)
@given(content=st.binary(max_size=60), suffix=st.sampled_from(["json", "jsonl", "csv", "parquet"]))
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


# Tables.


def test_arguments_as_structs_are_refused_because_arrow_fills_them(tmp_path: Path):
    calls = [{"function": {"name": "f", "arguments": {"a": 1}}}]
    others = [{"function": {"name": "g", "arguments": {"b": 2}}}]
    rows = [{"messages": [{"role": "assistant", "tool_calls": c}]} for c in (calls, others)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "r.parquet")
    with pytest.raises(DataError, match=r"'arguments' is a struct column.*JSON text"):
        read_all(tmp_path / "r.parquet")


def test_columns_that_json_cannot_hold_are_left_out(tmp_path: Path):
    table = pa.table(
        {
            "prompt": ["q"],
            "completion": ["a"],
            "when": pa.array([2**62], pa.timestamp("us")),
            "price": pa.array([1], pa.decimal128(5)),
        }
    )
    pq.write_table(table, tmp_path / "r.parquet")
    assert values(tmp_path / "r.parquet") == [{"prompt": "q", "completion": "a"}]


@pytest.mark.parametrize("line", ['{"a": 1, "a": 2}', '{"a": {"b": 1, "b": 1}}', '{"a": 1e999}'])
def test_what_pythons_json_would_lose_is_a_bad_record(tmp_path: Path, line: str):
    (tmp_path / "r.jsonl").write_text(line, encoding="utf-8")
    (bad,) = read_all(tmp_path / "r.jsonl")
    assert isinstance(bad, BadRecord)
    (tmp_path / "r.json").write_text(f'[{line}, {{"a": 1}}]', encoding="utf-8")
    bad, good = read_all(tmp_path / "r.json")
    assert isinstance(bad, BadRecord)
    assert isinstance(good, Record)
