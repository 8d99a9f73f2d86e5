"""Preferences and continued pre-training of the real small model, on rows that were held out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.chat_templates import load_template, without_turns
from data_prep.pipeline import prepare
from data_prep.settings import DataConfig
from data_prep.tokenizer import load_tokenizer
from llmkit.training.units import UNITS_OF

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture
def trained(
    run: Callable[..., Any], smollm2: Path, tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """A few steps of LoRA on short rows of a set; the figures."""
    tokenizer = load_tokenizer(smollm2)

    def go(name: str, method: str, data: dict[str, Any], **settings: Any) -> dict[str, Any]:
        if not (SHARED / name).is_file():
            pytest.skip(f"{SHARED / name} is not here")
        plain = method == "pretrain"
        template = (without_turns if plain else load_template)("keep", tokenizer)
        source = {"path": str(SHARED / name), **data.pop("source")}
        config = DataConfig.model_validate({"sources": [source], **data})
        (tmp_path / "data").mkdir()
        prepared = prepare(config, template, tmp_path / "data", units=UNITS_OF[method])
        settings |= {"method": method, "adapter": {"rank": 16}, "learning_rate": 5e-4}
        return run(prepared, tmp_path, model=smollm2, **settings)

    return go


def test_dpo_tells_pairs_apart_that_it_has_not_seen(trained):
    pairs = {"source": {"take": 110}, "max_tokens": 256, "validation": 4}
    found = trained("dpo_en_demo/dpo_en_demo.json", "dpo", pairs, max_steps=4)["watched"]
    print("FIG smol dpo", found)
    assert found["margin"][0] == pytest.approx(0, abs=0.02)
    assert found["margin"][1] > 0.05
    assert found["accuracy"][1] > 0.5


def test_kto_moves_good_answers_from_bad_ones_that_it_has_not_seen(trained):
    labelled = {"source": {"take": 110}, "max_tokens": 192, "validation": 4}
    found = trained("kto_en_demo/kto_en_demo_half_a.json", "kto", labelled, max_steps=4)["watched"]
    print("FIG smol kto", found)
    assert found["margin"][0] == pytest.approx(0, abs=0.02)
    assert found["margin"][1] > 0.02


def test_continued_pretraining_learns_to_write_plays(trained):
    plays = {"source": {"take": 40, "text_unit": "paragraph"}, "max_tokens": 256, "validation": 8}
    found = trained("tinyshakespeare/input.txt", "pretrain", plays, max_steps=4)
    print("FIG smol pretrain", found["validation_loss_start"], found["validation_loss_end"])
    assert found["validation_loss_end"] < found["validation_loss_start"] - 0.1
