"""Parquet files and hub data sets."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_files import ROWS, places, read_all, save, values

from data_prep.errors import DataError

CALLS = [
    {"messages": [{"role": "assistant", "tool_calls": [{"arguments": arguments}]}]}
    for arguments in ({"a": 1}, {"b": 2})
]


@pytest.mark.parametrize("content", [b"PAR1 no", b""])
def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "r.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"r\.parquet: cannot be read as Parquet: "):
        read_all(tmp_path / "r.parquet")


def test_damage_in_the_middle_says_how_far_it_was_read(tmp_path: Path):
    path = tmp_path / "r.parquet"
    table = pa.table({"a": [str(number) for number in range(20_000)]})
    pq.write_table(table, path, row_group_size=10_000, compression="zstd", use_dictionary=False)
    content = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    content[start : start + 2000] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"r\.parquet: cannot be read as Parquet after \d+ rows: "):
        read_all(path)


def test_columns_of_one_name_are_refused(tmp_path: Path):
    batch = pa.RecordBatch.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["a", "a"])
    pq.write_table(pa.Table.from_batches([batch]), tmp_path / "r.parquet")
    with pytest.raises(DataError, match="several columns are named 'a'"):
        read_all(tmp_path / "r.parquet")


def test_text_that_is_not_utf8_is_refused(tmp_path: Path):
    offsets = pa.array([0, 2], pa.int32()).buffers()[1]
    text = pa.StringArray.from_buffers(1, offsets, pa.py_buffer(b"\xff\xfe"))
    pq.write_table(pa.table({"a": text}), tmp_path / "r.parquet")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_all(tmp_path / "r.parquet")


def test_arguments_as_structs_are_refused_because_arrow_fills_them(tmp_path: Path):
    pq.write_table(pa.Table.from_pylist(CALLS), tmp_path / "r.parquet")
    with pytest.raises(DataError, match=r"'arguments' is a struct column.*JSON text"):
        read_all(tmp_path / "r.parquet")


def test_columns_that_json_cannot_hold_are_left_out(tmp_path: Path):
    table = pa.table(
        {
            "prompt": pa.array(["q"]).dictionary_encode(),
            "completion": ["a"],
            "when": pa.array([2**62], pa.timestamp("us")),
            "price": pa.array([1], pa.decimal128(5)),
        }
    )
    pq.write_table(table, tmp_path / "r.parquet")
    assert values(tmp_path / "r.parquet") == [{"prompt": "q", "completion": "a"}]
    pq.write_table(table.select(["when"]), tmp_path / "r.parquet")
    assert values(tmp_path / "r.parquet") == [{}]


def test_a_date_inside_a_turn_does_not_take_the_conversation_with_it(tmp_path: Path):
    turn = pa.struct([("role", pa.string()), ("at", pa.timestamp("us")), ("content", pa.string())])
    messages = [[{"role": "user", "at": 2**62, "content": "q"}], None, []]
    for kind in (pa.list_, pa.large_list):
        table = pa.table({"messages": pa.array(messages, kind(turn)), "n": [1, 2, 3]})
        pq.write_table(table, tmp_path / "r.parquet")
        assert values(tmp_path / "r.parquet") == [
            {"messages": [{"role": "user", "content": "q"}], "n": 1},
            {"messages": None, "n": 2},
            {"messages": [], "n": 3},
        ]


@pytest.mark.parametrize("values_of", [[b"text"], [[{"at": b"x"}]]])
def test_bytes_where_text_is_learned_from_are_refused(tmp_path: Path, values_of):
    pq.write_table(pa.table({"output": values_of, "n": [1]}), tmp_path / "r.parquet")
    with pytest.raises(DataError, match=r"column 'output' holds .*binary.* Store it as text"):
        read_all(tmp_path / "r.parquet")


MIXED = [
    {"tools": [{"arguments": {"x": 1}}], "content": "c", "deep": {"a": ["b"]}},
    {"tools": [{"arguments": {"y": [2]}}, None], "content": ["z", None], "deep": {"a": [3]}},
    {"tools": None, "content": None, "deep": None},
]
"""Rows of values that Arrow has no common type for."""


@pytest.mark.parametrize("streaming", [False, True, None])
def test_json_text_inside_a_column_is_parsed(tmp_path: Path, monkeypatch, streaming):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in MIXED))
    loaded = datasets.load_dataset(
        "json", data_files=str(tmp_path / "r.jsonl"), split="train", streaming=bool(streaming)
    )
    assert "Json" in str(loaded.features)
    if streaming is None:
        loaded.to_parquet(tmp_path / "r.parquet")
        assert values(tmp_path / "r.parquet") == MIXED
    else:
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: loaded)
        assert values("a/b") == MIXED


def test_json_text_that_is_none_is_refused(tmp_path: Path):
    text = pa.array(['{"a": 1}', '{"a": NaN}'], pa.json_())
    pq.write_table(pa.table({"a": text}), tmp_path / "r.parquet")
    with pytest.raises(DataError, match=r"r\.parquet: .* after 1 rows: NaN and Infinity"):
        read_all(tmp_path / "r.parquet")


# Data sets.


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hub can be reached, as long as there is no reason in the list why not."""
    reasons: list[str] = []
    monkeypatch.setattr("data_prep.sources.hub._unreachable", lambda: "".join(reasons))
    return reasons


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """A hub with one data set of three rows; gives what it was asked for."""
    import datasets

    asked: list[dict[str, Any]] = []

    def load(path: str, *, streaming: bool, **settings: Any) -> Any:
        asked.append({"path": path, "streaming": streaming, **settings})
        rows = [{"text": text, "n": number} for number, text in enumerate("abc")]
        found = datasets.Dataset.from_list(rows)
        return found.to_iterable_dataset() if streaming else found

    monkeypatch.setattr(datasets, "load_dataset", load)
    return asked


@pytest.mark.parametrize("streaming", [False, True])
def test_a_hub_data_set_is_asked_for_as_the_source_says(hub, streaming: bool):
    source = {"name": "en", "revision": "v2", "split": "test", "streaming": streaming}
    found = read_all("owner/name", skip=1, **source)
    assert [record.where for record in found] == [
        "owner/name@v2/en/test[1]", "owner/name@v2/en/test[2]"
    ]  # fmt: skip
    assert found[0].value == {"text": "b", "n": 1}
    assert hub == [{"path": "owner/name"} | source]


def test_a_hub_data_set_needs_no_more_than_its_name(hub):
    assert places("owner/name", take=1) == ["owner/name/train[0]"]
    plain = {"name": None, "revision": None, "split": "train", "streaming": False}
    assert hub == [{"path": "owner/name"} | plain]


@pytest.mark.parametrize("streaming", [False, True])
def test_filled_structs_of_a_data_set_are_refused(monkeypatch, streaming: bool):
    import datasets

    calls = datasets.Dataset.from_list(CALLS)
    loaded = calls.to_iterable_dataset() if streaming else calls
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: loaded)
    with pytest.raises(DataError, match=r"a/b: 'arguments' is a struct column"):
        read_all("a/b", streaming=streaming)


def test_text_settings_mean_nothing_to_a_data_set(hub):
    with pytest.raises(DataError, match=r"owner/name: text_unit is for \.txt files"):
        read_all("owner/name", text_unit="file")


@pytest.mark.parametrize("path", ["nobody/nothing", "teknium/OpenHermes-2.5", "a/b.v2"])
def test_a_hub_id_that_cannot_be_loaded_is_refused(path, monkeypatch):
    import datasets

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no network here")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(DataError, match=rf"{path}: .*ConnectionError: no network here"):
        read_all(path)


def test_a_hub_that_cannot_be_reached_is_not_asked_again_and_again(monkeypatch, network, tmp_path):
    import datasets

    network.append("no network")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda _seconds: pytest.fail("it waits to try again"))
    with pytest.raises(DataError) as caught:
        read_all("nobody/nothing")
    assert "no such file or folder here (looked in /" in str(caught.value)
    assert "neither in the cache nor can the hub be reached (no network)" in str(caught.value)
    assert not datasets.config.HF_HUB_OFFLINE


def test_without_the_hub_a_version_is_read_from_the_cache_only_if_it_is_that_one(
    monkeypatch, network, tmp_path
):
    import datasets

    network.append("no network")
    folder = tmp_path / "owner___name" / "default" / "0.0.0" / "abc123"
    datasets.Dataset.from_list(ROWS).save_to_disk(folder)
    cached = datasets.load_from_disk(folder)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: cached)
    assert values("owner/name", revision="abc123") == ROWS
    assert values("owner/name") == ROWS
    with pytest.raises(DataError, match="version in the cache is 'main' is not known here"):
        read_all("owner/name", revision="main")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: cached.to_iterable_dataset())
    with pytest.raises(DataError, match="is not known here"):
        read_all("owner/name", revision="abc123", streaming=True)


def test_a_network_that_fails_midway_is_an_error_that_says_how_far(monkeypatch):
    import datasets

    def rows() -> Any:
        yield from ({"text": str(number)} for number in range(3000))
        raise ConnectionError("gone")

    loaded = datasets.IterableDataset.from_generator(rows)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: loaded)
    with pytest.raises(DataError, match=r"a/b: .*reading it failed after \d+ rows.*gone"):
        read_all("a/b", streaming=True)


@pytest.mark.parametrize("parts", [False, True])
def test_a_folder_that_datasets_saved_is_loaded_from_there(tmp_path: Path, parts: bool):
    import datasets

    rows = datasets.Dataset.from_list(ROWS)
    whole = datasets.DatasetDict({"train": rows, "test": rows.select([1])}) if parts else rows
    whole.save_to_disk(tmp_path / "saved")
    assert values(tmp_path / "saved") == ROWS
    assert places(tmp_path / "saved")[1] == f"{tmp_path}/saved/train[1]"
    if parts:
        assert values(tmp_path / "saved", split="test") == ROWS[1:]
    with pytest.raises(DataError, match=r"no split 'dev'. Allowed: train, test|holds the split"):
        read_all(tmp_path / "saved", split="dev")
    with pytest.raises(DataError, match="name, revision and streaming are for hub data sets"):
        read_all(tmp_path / "saved", streaming=True)


def test_a_folder_with_a_card_is_loaded_as_the_card_says(tmp_path: Path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "rows"
    folder.mkdir()
    for name, rows in (("en", ROWS), ("de", ROWS[:1])):
        save(folder / f"{name}.jsonl", rows)
    configs = "".join(f"- config_name: {n}\n  data_files: {n}.jsonl\n" for n in ("en", "de"))
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n# Rows\n")
    assert values(folder, name="de") == ROWS[:1]
    assert places(folder, name="en") == [f"{folder}/en/train[{n}]" for n in (0, 1)]
    (folder / "README.md").write_text("# Rows\n")
    assert len(values(folder)) == 3
