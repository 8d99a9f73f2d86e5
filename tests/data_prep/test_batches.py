"""Records in batches: enough to be worth a process, not more than memory holds."""

import json

import pytest

from data_prep import batches as module
from data_prep.batches import batches
from data_prep.settings import DataConfig


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_a_batch_is_closed_when_its_texts_are_long_however_deep_they_stand(
    tmp_path, monkeypatch, kind
):
    monkeypatch.setattr(module, "BATCH_BYTES", 3000)
    rows = [
        {
            "messages": [
                {"role": "user", "content": "a" * 1000},
                {"role": "assistant", "content": ""},
            ]
        }
        for _ in range(7)
    ]
    path = tmp_path / f"rows.{kind}"
    lines = "\n".join(map(json.dumps, rows))
    path.write_text(json.dumps(rows) if kind == "json" else lines, encoding="utf-8")
    found = list(batches(DataConfig(sources=[{"path": str(path)}])))
    assert [len(batch.records) for batch in found] == [3, 3, 1]
    assert [batch.full for batch in found] == [True, True, False]
    assert [batch.number for batch in found] == [0, 1, 2]


def test_a_batch_has_no_more_records_than_asked_for_and_holds_one_source(tmp_path):
    for name, count in (("a", 5), ("b", 2)):
        rows = "".join(json.dumps({"text": f"{name} {i}"}) + "\n" for i in range(count))
        (tmp_path / f"{name}.jsonl").write_text(rows, encoding="utf-8")
    sources = [{"path": str(tmp_path / f"{name}.jsonl")} for name in "ab"]
    found = list(batches(DataConfig(sources=sources, shard_rows=2)))
    assert [(batch.source, len(batch.records)) for batch in found] == [
        (0, 2),
        (0, 2),
        (0, 1),
        (1, 2),
    ]
