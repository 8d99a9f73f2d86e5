import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from row_strategies import ROWS, conversations

from data_prep import converting
from data_prep.converting import convert_rows
from data_prep.errors import DataError, RowError
from data_prep.formats.writing import write_record
from data_prep.reading import read_rows
from data_prep.sources.config import SourceConfig

GOOD = {"instruction": "q", "input": "i", "output": "a"}
NO_ANSWER = {"instruction": "q", "output": " "}
MESSAGES = [{"role": "user", "content": "q\ni"}, {"role": "assistant", "content": "a"}]


def source(path: Path, *records: object, format_name: str = "auto") -> SourceConfig:
    lines = (r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return SourceConfig(path=str(path), format=format_name)


def lines_of(path: Path) -> list[dict]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_sources_of_several_formats_become_one_file_of_one(tmp_path):
    one = source(tmp_path / "one.jsonl", GOOD)
    other = source(
        tmp_path / "other.jsonl", {"text": "### Human: \u2028q### Assistant: \U0001f98a"}
    )
    found = convert_rows([one, other], "openai", tmp_path / "out.jsonl")
    assert lines_of(tmp_path / "out.jsonl") == [
        {"messages": MESSAGES},
        {
            "messages": [
                {"role": "user", "content": "\u2028q"},
                {"role": "assistant", "content": "\U0001f98a"},
            ]
        },
    ]
    assert (found.rows_in, found.rows_written, found.dropped) == (2, 2, {})
    assert found.formats[one.path] == (
        "alpaca (from its fields): it has 'instruction' and 'output'"
    )
    assert not list(tmp_path.glob(".*"))


def test_rows_that_cannot_be_used_or_written_fail_the_whole_and_leave_no_file(tmp_path):
    rows = source(tmp_path / "r.jsonl", GOOD, "{", NO_ANSWER, *[NO_ANSWER] * 20)
    out = tmp_path / "out.jsonl"
    out.write_text("before\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        convert_rows([rows], "openai", out)
    message = str(caught.value)
    assert message.startswith("22 of 23 rows cannot be converted (21 empty answer, 1 malformed):")
    assert f"{rows.path}:2: malformed: not JSON" in message
    assert f"{rows.path}:3: empty answer: an assistant turn has no text" in message
    assert "... and 16 more\n" in message
    assert "on_error=skip" in message
    assert out.read_text(encoding="utf-8") == "before\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "r.jsonl"]


def test_skipped_rows_are_counted_by_reason_with_examples(tmp_path):
    longer = GOOD | {"history": [["q0", "a0"]]}
    rows = source(tmp_path / "r.jsonl", GOOD, "{", NO_ANSWER, longer, longer)
    found = convert_rows([rows], "dolly", tmp_path / "out.jsonl", on_error="skip")
    assert found.dropped == {"cannot be written as dolly": 2, "malformed": 1, "empty answer": 1}
    assert found.rows_in == found.rows_written + sum(found.dropped.values()) == 5
    assert any(
        "cannot be written as dolly: its turns before the last question would be lost" in line
        for line in found.examples
    )
    assert len(lines_of(tmp_path / "out.jsonl")) == 1


def test_repeated_roles_are_merged_where_asked_and_counted(tmp_path):
    twice = [MESSAGES[0], *MESSAGES]
    rows = source(tmp_path / "r.jsonl", {"messages": twice}, {"messages": MESSAGES})
    found = convert_rows([rows], "alpaca", tmp_path / "out.jsonl", roles="merge")
    assert found.rows_merged == 1
    assert lines_of(tmp_path / "out.jsonl")[0]["instruction"] == "q\ni\n\nq\ni"
    with pytest.raises(DataError, match="role order"):
        convert_rows([rows], "alpaca", tmp_path / "out.jsonl")


def test_repeated_roles_are_dropped_where_asked_and_counted_and_nothing_else_is(tmp_path):
    twice = {"messages": [MESSAGES[0], *MESSAGES]}
    rows = source(tmp_path / "r.jsonl", twice, {"messages": MESSAGES})
    found = convert_rows([rows], "alpaca", tmp_path / "out.jsonl", roles="drop")
    assert (found.rows_written, found.dropped) == (1, {"role order": 1})
    rows = source(tmp_path / "r.jsonl", twice, {"messages": MESSAGES}, "{")
    with pytest.raises(DataError, match=r"1 of 3 rows cannot be converted \(1 malformed\)"):
        convert_rows([rows], "alpaca", tmp_path / "out.jsonl", roles="drop")


def test_a_source_is_never_written_over(tmp_path):
    rows = source(tmp_path / "r.jsonl", GOOD)
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "r.jsonl")
    os.link(tmp_path / "r.jsonl", tmp_path / "hard.jsonl")
    for out in ("r.jsonl", "folder/../r.jsonl", "link.jsonl", "hard.jsonl"):
        with pytest.raises(DataError, match=r"is what .*r\.jsonl reads"):
            convert_rows([rows], "openai", tmp_path / out)
    for path in (folder, tmp_path / "f*" / "*.jsonl"):
        (folder / "in.jsonl").write_text("{}\n", encoding="utf-8")
        with pytest.raises(DataError, match="Name another file to write"):
            convert_rows([SourceConfig(path=str(path))], "openai", folder / "in.jsonl")
    assert lines_of(tmp_path / "r.jsonl") == [GOOD]


@pytest.mark.parametrize(
    ("target", "out", "problem"),
    [
        ("self_instruct", "out.jsonl", "'self_instruct' is not a format that can be written"),
        ("opneai", "out.jsonl", "Did you mean 'openai'.*: alpaca, sharegpt, openai"),
        ("openai", "out.json", "name the file with .jsonl"),
        ("openai", "no/out.jsonl", "there is no folder .*no. Make it first"),
        ("openai", "folder.jsonl", "is a folder. Name a file"),
        ("openai", f"{'x' * 300}.jsonl", "cannot be written: File name too long"),
    ],
)
def test_what_cannot_be_written_to_is_refused(tmp_path, target, out, problem):
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(DataError, match=problem):
        convert_rows([source(tmp_path / "r.jsonl", GOOD)], target, tmp_path / out)


def test_nothing_to_write_is_an_error_with_the_reasons(tmp_path):
    rows = source(tmp_path / "r.jsonl", NO_ANSWER, "{")
    with pytest.raises(DataError, match="No row is left to write: 2 rows in, dropped: 1 empty ans"):
        convert_rows([rows], "openai", tmp_path / "out.jsonl", on_error="skip")
    with pytest.raises(DataError, match="has no rows"):
        convert_rows([source(tmp_path / "r.jsonl")], "openai", tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["r.jsonl"]


def test_rows_that_a_format_cannot_hold_name_those_that_can(tmp_path):
    preference = {"prompt": "q", "chosen": "a", "rejected": "b"}
    judged = {"prompt": "q", "completion": "a", "label": False}
    pairs = source(tmp_path / "p.jsonl", preference, preference)
    out = tmp_path / "out.jsonl"
    with pytest.raises(DataError) as caught:
        convert_rows([pairs], "openai", out)
    said = str(caught.value)
    assert said.endswith("\nMend them, or: --convert preference holds all of such rows.")
    with pytest.raises(DataError, match=r"No row is left[^~]*or: --convert preference holds"):
        convert_rows([pairs], "openai", out, on_error="skip")
    both = [pairs, source(tmp_path / "k.jsonl", judged), source(tmp_path / "r.jsonl", GOOD)]
    with pytest.raises(
        DataError, match=r"preference and --convert kto holds.*; data\.on_error=skip leaves them"
    ):
        convert_rows(both, "openai", out)
    called = {"messages": MESSAGES, "tools": [{"name": "f"}]}
    with pytest.raises(DataError, match=r"or: --convert openai holds all of such rows\.$"):
        convert_rows([source(tmp_path / "t.jsonl", called)], "alpaca", out)


def test_what_is_interrupted_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    out = tmp_path / "out.jsonl"
    out.write_text("before\n", encoding="utf-8")

    def stop(row: object, target: str) -> dict:
        raise KeyboardInterrupt

    monkeypatch.setattr(converting, "write_record", stop)
    with pytest.raises(KeyboardInterrupt):
        convert_rows([source(tmp_path / "r.jsonl", GOOD)], "openai", out)
    assert out.read_text(encoding="utf-8") == "before\n"
    assert len(list(tmp_path.iterdir())) == 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(conversations(calls=True, flags=True), min_size=1, max_size=4))
def test_a_file_converted_to_sharegpt_and_back_has_the_same_bytes(tmp_path, rows):
    first = source(tmp_path / "r.jsonl", *(write_record(row, "openai") for row in rows))
    convert_rows([first], "openai", tmp_path / "one.jsonl")
    convert_rows([SourceConfig(path=str(tmp_path / "one.jsonl"))], "sharegpt", tmp_path / "s.jsonl")
    convert_rows([SourceConfig(path=str(tmp_path / "s.jsonl"))], "openai", tmp_path / "two.jsonl")
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    read = read_rows(SourceConfig(path=str(tmp_path / "s.jsonl")), "refuse")
    assert [found.row for found in read] == rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(ROWS, st.sampled_from(["openai", "preference", "kto", "text", "completion"]))
def test_every_row_that_is_read_is_written_or_counted(tmp_path, row, target):
    for name in ("openai", "preference", "kto", "text", "completion"):
        try:
            record = write_record(row, name)
        except RowError:
            continue
        rows = source(tmp_path / "r.jsonl", GOOD, record, format_name=name)
        try:
            found = convert_rows([rows], target, tmp_path / "out.jsonl", on_error="skip")
        except DataError as error:
            assert "No row is left" in str(error)  # noqa: PT017 (both were dropped)
            continue
        assert found.rows_in == found.rows_written + sum(found.dropped.values()) == 2
        assert len(lines_of(tmp_path / "out.jsonl")) == found.rows_written


def test_a_file_that_two_sources_name_is_not_written_twice(tmp_path):
    rows = source(tmp_path / "r.jsonl", GOOD)
    pattern = SourceConfig(path=str(tmp_path / "r*.jsonl"))
    out = tmp_path / "out.jsonl"
    with pytest.raises(DataError, match="is named by two sources"):
        convert_rows([rows, pattern], "openai", out)


def test_progress_is_told_while_rows_are_read(tmp_path):
    rows = source(tmp_path / "r.jsonl", *[GOOD] * 2500)
    told: list[int] = []
    convert_rows([rows], "qa", tmp_path / "out.jsonl", progress=told.append)
    assert told == [1000, 1000]


def test_fields_that_are_not_in_the_file_are_counted(tmp_path):
    rows = source(tmp_path / "r.jsonl", GOOD | {"id": 7}, GOOD | {"id": 8, "lang": "en"}, GOOD)
    assert convert_rows([rows], "qa", tmp_path / "out.jsonl").unused == {"id": 2, "lang": 1}
