"""Real data sets, whole: the ledger balances and every certificate holds."""

from pathlib import Path

import pytest

from data_prep.auditing import audit_prepared
from data_prep.errors import DataError
from data_prep.pipeline import prepare
from data_prep.prepared import PreparedDataset
from data_prep.settings import DataConfig

SHARED = Path(__file__).parents[2].parent / "shared" / "data"

SETS = {
    "alpaca_en_demo/alpaca_en_demo.json": ("alpaca", 999),
    "identity/identity.json": ("alpaca", 91),
    "sharegpt_dummy/dummy_conversation.json": ("sharegpt", 500),
    "glaive_toolcall_en_demo/glaive_toolcall_en_demo.json": ("sharegpt", 300),
    "oasst_samples/oasst_half_a.jsonl": ("guanaco", 489),
    "self_instruct_seed/seed_tasks.jsonl": ("self_instruct", 175),
    "gsm8k_train/train.jsonl": ("qa", 7473),
    "mmlu_val/mmlu_val_half_a.jsonl": ("qa", 781),
    "c4_demo/c4_demo.jsonl": ("text", 300),
    "wiki_demo/wiki_demo.txt": ("text", 30),
    "tinyshakespeare/input.txt": ("text", 5000),
}


def path_of(name: str) -> str:
    if not (SHARED / name).is_file():
        pytest.skip(f"{SHARED / name} is not here")
    return str(SHARED / name)


@pytest.mark.parametrize("name", SETS)
def test_every_row_is_accounted_for_and_every_certificate_holds(name, tmp_path, chatml):
    path = path_of(name)
    config = DataConfig.model_validate(
        {
            "sources": [{"path": path, "take": SETS[name][1]}],
            "on_error": "skip",
            "markers": "escape",
            "filters": [{"kind": "personal", "action": "mask"}, {"kind": "repetition"}],
            "dedup": {"minhash": {}},
            "contamination": {"against": [path_of("mmlu_val/mmlu_val_half_a.jsonl")]},
            "validation": 0.05,
            "keep_together": "questions",
            "max_duplicates": 1,
            "overlong": "split",
            "max_tokens": 512,
        }
    )
    if name.startswith("mmlu"):
        config = config.model_copy(update={"contamination": None})
    figures = prepare(config, chatml, tmp_path).figures
    expected, rows = SETS[name]
    assert figures["formats"] == {path: f"{expected} (from its fields)"}
    assert figures["rows_in"] == rows
    kept = figures["rows_kept"] + figures["rows_split"]
    assert figures["rows_in"] == kept + figures["rows_dropped"]
    spent = figures["tokens_kept"] + figures["tokens_cut"] + figures["tokens_dropped"]
    assert figures["tokens_in"] == spent
    assert figures["train_rows"] + figures["validation_rows"] == kept
    assert 0 < figures["tokens_supervised"] <= figures["tokens_kept"]
    prepared = PreparedDataset.open(tmp_path)
    assert audit_prepared(config, chatml, prepared).problems == []
    written = [prepared.sequences(split) for split in ("train", "validation")]
    assert sum(len(ids) for t in written for ids in t["input_ids"]) == figures["tokens_kept"]


@pytest.mark.parametrize(
    "name", ["dpo_en_demo/dpo_en_demo.json", "kto_en_demo/kto_en_demo_half_a.json"]
)
def test_rows_for_preference_training_are_not_taught_as_if_every_answer_were_right(
    name, tmp_path, chatml
):
    config = DataConfig.model_validate({"sources": [{"path": path_of(name)}]})
    with pytest.raises(DataError, match=r"preference row: .* for preference training"):
        prepare(config, chatml, tmp_path)


def test_every_row_with_tools_is_refused_where_the_template_writes_none(tmp_path, chatml):
    path = path_of("glaive_toolcall_en_demo/glaive_toolcall_en_demo.json")
    config = DataConfig.model_validate({"sources": [{"path": path}], "on_error": "skip"})
    dropped = prepare(config, chatml, tmp_path).figures["dropped"]
    assert dropped["template loses the tools"] == 191
