"""Tasks are read from whatever holds instructions."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.errors import DataError
from data_prep.generate.tasks import Instance, Task, read_tasks
from data_prep.sources.config import SourceConfig


def read(tmp_path: Path, *records: Any, **settings: Any) -> list[Task]:
    path = tmp_path / "seeds.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in records), "utf-8")
    return read_tasks([SourceConfig(path=str(path), **settings)])


@pytest.mark.parametrize(
    ("record", "question"),
    [
        ({"instruction": "Add", "input": "1 2", "output": "3"}, "Add\n1 2"),
        ({"instruction": "Tell a joke"}, "Tell a joke"),
        ({"instruction": "Add", "instances": [{"input": "1", "output": "1"}]}, "Add\n1"),
        ({"prompt": "Tell a joke"}, "Tell a joke"),
        ({"question": "Why?", "answer": "So."}, "Why?"),
        ({"text": "Tell a joke"}, "Tell a joke"),
        (
            {
                "messages": [
                    {"role": "user", "content": "Hi"},
                    {"role": "assistant", "content": "Ho"},
                ]
            },
            "Hi",
        ),
    ],
)
def test_instructions_stand_in_many_places(tmp_path: Path, record: Any, question: str):
    (task,) = read(tmp_path, record)
    assert task.question == question
    assert task.id == "seeds.jsonl:1"


def test_ids_are_kept_and_stay_different(tmp_path: Path):
    tasks = read(tmp_path, *({"id": name, "instruction": "Do"} for name in ("a", 7, "a", None)))
    assert [each.id for each in tasks] == ["a", "7", "seeds.jsonl:3", "seeds.jsonl:4"]


def test_cases_and_labels_of_self_instruct_are_kept(tmp_path: Path):
    record = {
        "instruction": "Judge",
        "instances": [{"input": "x", "output": "good"}, {"input": "y", "output": "bad"}],
        "is_classification": True,
    }
    (task,) = read(tmp_path, record)
    assert task.instances == (Instance("x", "good"), Instance("y", "bad"))
    assert task.is_classification is True


def test_every_record_without_an_instruction_is_named(tmp_path: Path):
    with pytest.raises(DataError) as raised:
        read(tmp_path, {"instruction": "Do"}, {"a": 1}, {"instruction": "  "}, [])
    said = str(raised.value)
    assert said.startswith("3 records have no instruction to begin with")
    for line in (2, 3, 4):
        assert f"seeds.jsonl:{line}" in said


def test_a_source_without_records_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="no records to begin with"):
        read(tmp_path)


SEEDS = (
    Path(__file__).parents[3].parent / "shared" / "data" / "self_instruct_seed" / "seed_tasks.jsonl"
)


@pytest.mark.skipif(not SEEDS.is_file(), reason="the seed tasks are not here")
def test_the_published_seed_tasks_are_read():
    tasks = read_tasks([SourceConfig(path=str(SEEDS))])
    assert len(tasks) == len({each.id for each in tasks}) == 175
    assert all(each.instances and each.is_classification is not None for each in tasks)
