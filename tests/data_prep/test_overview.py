"""What a person is shown of a prepared data set, and how much of it."""

import json

from tiny_tokenizer import alpaca, write_jsonl

from data_prep import comparing, decisions, overview
from data_prep.pipeline import prepare
from data_prep.settings import DataConfig


def shown(prepared) -> dict:
    return json.loads((prepared.folder / "overview.json").read_text(encoding="utf-8"))


def test_of_a_very_long_row_the_beginning_is_shown(tmp_path, chatml):
    row = alpaca(1, answer="the quick fox " * 20_000)
    source = {"path": write_jsonl(tmp_path / "rows.jsonl", [row])}
    config = DataConfig(sources=[source], max_tokens=64, overlong="split")
    (rendered,) = shown(prepare(config, chatml, tmp_path))["rendered"]
    assert rendered["tokens"] > 20_000
    assert rendered["tokens_shown"] == overview.MOST_TOKENS
    assert sum(len(text) for text, _ in rendered["runs"]) < 50_000


def test_a_text_that_is_cut_says_so(tmp_path, chatml):
    rows = [alpaca(1, answer="so " * 2000)] * 2 + [alpaca(2), alpaca(2)]
    config = DataConfig(
        sources=[{"path": write_jsonl(tmp_path / "rows.jsonl", rows)}], max_tokens=16384
    )
    long, short = (
        pair["removed_text"] for pair in shown(prepare(config, chatml, tmp_path))["duplicates"]
    )
    assert long.endswith(" \u2026")
    assert len(long) == overview.LONGEST_SHOWN + 2
    assert short == "What is 2 plus one?\nIt is 3."


def test_the_least_similar_pairs_are_shown_however_many_there_are(tmp_path, chatml, monkeypatch):
    """Certificates and dropped rows come block by block: no number of them fills memory."""
    words = [f"word{i}x" for i in range(60)]
    rows = []
    for group in range(12):
        text = [f"{word}{chr(97 + group)}" for word in words]
        cut = group + 3
        rows += [alpaca(1000 + group, " ".join(text)), alpaca(2000 + group, " ".join(text[cut:]))]
    source = {"path": write_jsonl(tmp_path / "rows.jsonl", rows)}
    config = DataConfig(sources=[source], dedup={"minhash": {"on": "response"}})
    files = ("overview.json", "certificates.jsonl", "dropped.jsonl")

    def written(name: str) -> list[bytes]:
        folder = tmp_path / name
        folder.mkdir()
        prepare(config, chatml, folder)
        return [(folder / file).read_bytes() for file in files]

    whole = written("whole")
    monkeypatch.setattr(overview, "KEPT", 2)
    for module in (comparing, decisions):
        monkeypatch.setattr(module, "BLOCK", 5)
    assert written("blocks") == whole
    found = json.loads(whole[0])["duplicates"]
    certified = [json.loads(line)["similarity"] for line in whole[1].splitlines()]
    assert len(certified) == 12
    assert [pair["similarity"] for pair in found] == sorted(certified)[: overview.DUPLICATES]


def test_personal_data_that_was_dropped_does_not_stand_in_the_report(tmp_path, chatml):
    rows = [alpaca(1), alpaca(2, "Write to jane.doe@example.com."), alpaca(3, "a@b.org " * 30)]
    source = {"path": write_jsonl(tmp_path / "rows.jsonl", rows)}
    filters = [{"kind": "words", "max": 30}, {"kind": "personal"}]
    config = DataConfig(sources=[source], filters=filters)
    dropped = shown(prepare(config, chatml, tmp_path))["dropped"]
    assert dropped["filter personal"][0]["text"].endswith("Write to <EMAIL>.")
    assert "<EMAIL> <EMAIL>" in dropped["filter words"][0]["text"]
    for name in ("overview.json", "dropped.jsonl", "ledger.json"):
        assert "@" not in (tmp_path / name).read_text(encoding="utf-8")
