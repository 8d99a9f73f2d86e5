"""Reward models: what is trained is what is merged, and what transformers scores."""

from pathlib import Path
from typing import Any

import pytest
import torch
from preference_units import learnable, packed, prepared_of, samples_of
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from data_prep.tokenizer import load_tokenizer
from llmkit.console import QuietView
from llmkit.errors import CheckFailed, UsageError
from llmkit.models import merging, trained
from llmkit.models.attention import ROWS_ATTENTION, AttentionInterface, rows_attention
from llmkit.models.catalog import refuse_other_kind
from llmkit.models.loading import compute_dtype, load_scorer
from llmkit.models.scoring import row_scores
from llmkit.models.settings import MergeConfig, ModelConfig
from llmkit.pipeline import what_next
from llmkit.project import Project
from llmkit.recipe import load_recipe
from llmkit.run import Run
from llmkit.serving import serve_run_or_model
from llmkit.training.batching import Sequence, Sequences, collate
from llmkit.training.isolation import check_scores_are_the_rows_own

CPU = torch.device("cpu")


@pytest.fixture
def units(tiny: Path) -> list[Sequence]:
    encode = load_tokenizer(tiny).encode
    return learnable(lambda text: encode([text])[0], 16, "pairs")


def _merge(tiny: Path, result: Path, units: list[Sequence], folder: Path, **settings: Any) -> Any:
    folder.mkdir()
    quantization = settings.pop("quantization", "none")
    return merging.merge(
        MergeConfig.model_validate(settings),
        ModelConfig(base="tiny", device="cpu", quantization=quantization),
        tiny,
        result,
        samples_of(units),
        chat_template="{{ messages }}",
        stop_ids=[2],
        folder=folder,
        kind=merging.REWARD_MODEL,
    )


@torch.no_grad()
def _scores(model: Any, units: list[Sequence]) -> torch.Tensor:
    return torch.cat([row_scores(model, collate([unit.without_kinds()])) for unit in units])


@pytest.mark.parametrize(
    "adapter",
    [{"rank": 4}, {"rank": 4, "targets": ["q_proj"]}, {"kind": "freeze", "layers": 1}],
    ids=["lora", "some layers", "freeze"],
)
def test_the_merged_model_scores_as_the_trained_one(run, tiny, units, tmp_path, adapter):
    data = prepared_of(tmp_path / "data", packed(units, 2))
    figures = run(data, tmp_path, method="reward", max_steps=6, adapter=adapter)
    assert any("score" in name for name in figures["trains"])
    assert figures["trainable_dtype"] == ["float32"]
    found = _merge(tiny, tmp_path / "result", units, tmp_path / "merged", dtype="float32")
    assert found["closeness"]["base"]["kl"] < 1e-3
    assert found["kl_without_adapter"] > 0.05
    held = compute_dtype(CPU)  # as training held it
    base = load_scorer(tiny, quantization="none", device=CPU, dtype=held).float()
    tuned = trained.load(base, tmp_path / "result")
    merged = load_scorer(tmp_path / "merged", quantization="none", device=CPU, dtype=torch.float32)
    expected = _scores(merging.adapters.base_of(tuned), units)
    torch.testing.assert_close(_scores(merged, units), expected, rtol=1e-3, atol=1e-3)
    assert expected.std() > 0.1


def test_transformers_scores_padded_rows_as_trained(run, tiny, units, tmp_path):
    data = prepared_of(tmp_path / "data", packed(units, 2))
    run(data, tmp_path, method="reward", max_steps=4)
    _merge(tiny, tmp_path / "result", units, tmp_path / "merged", dtype="float32")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert model.config.num_labels == 1
    rows = [unit.row(index) for unit in units[:4] for index in (0, 1)]
    assert all(row.input_ids[-1] == 2 for row in rows)  # the token that ends a turn
    for side in ("left", "right"):
        padded = tokenizer.pad(
            {"input_ids": [row.input_ids.tolist() for row in rows]},
            return_tensors="pt",
            padding_side=side,
        )
        with torch.no_grad():
            scores = model(**padded).logits[:, 0]
        scorer = load_scorer(
            tmp_path / "merged", quantization="none", device=CPU, dtype=torch.float32
        )
        torch.testing.assert_close(scores, _scores(scorer, units[:4]), rtol=1e-3, atol=1e-3)


def test_a_padding_token_that_ends_turns_is_replaced(run, tiny, units, tmp_path):
    base = tmp_path / "base"
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.pad_token = "<|im_end|>"
    for file in tiny.iterdir():
        (base / file.name).parent.mkdir(exist_ok=True)
        (base / file.name).write_bytes(file.read_bytes())
    tokenizer.save_pretrained(base)
    data = prepared_of(tmp_path / "data", packed(units, 2))
    run(data, tmp_path, model=base, method="reward", max_steps=2)
    _merge(base, tmp_path / "result", units, tmp_path / "merged")
    merged = AutoTokenizer.from_pretrained(tmp_path / "merged")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    assert merged.pad_token_id not in (2, None)
    assert model.config.pad_token_id == merged.pad_token_id


def test_a_reward_model_is_no_base_to_fine_tune(tiny, tmp_path):
    load_scorer(tiny, quantization="none", device=CPU).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=r"scores texts.*no head to write with"):
        refuse_other_kind("judge", "language model", tmp_path)
    refuse_other_kind("tiny", "language model", tiny)


def test_a_quantised_base_is_scored_and_merged_both_ways(run, tiny, units, tmp_path):
    data = prepared_of(tmp_path / "data", packed(units, 2))
    run(data, tmp_path, method="reward", max_steps=6, quantization="nf4")
    found = _merge(
        tiny,
        tmp_path / "result",
        units,
        tmp_path / "merged",
        quantization="nf4",
        max_divergence=10,
    )
    assert set(found["closeness"]) == {"base", "dequantized"}
    assert found["target"] == min(
        found["closeness"], key=lambda target: found["closeness"][target]["kl"]
    )


def test_a_merge_far_from_the_trained_scores_is_refused(run, tiny, units, tmp_path, monkeypatch):
    data = prepared_of(tmp_path / "data", packed(units, 2))
    run(data, tmp_path, method="reward", max_steps=12, learning_rate=2e-2)
    monkeypatch.setattr(merging, "merged_into", lambda base, result, dtype: base)
    with pytest.raises(CheckFailed, match="nats a pair away from the trained one"):
        _merge(tiny, tmp_path / "result", units, tmp_path / "merged")


def test_a_score_drawn_at_random_is_that_of_its_seed(tiny):
    one, same, other = (
        load_scorer(tiny, quantization="none", device=CPU, seed=seed).score.weight
        for seed in (1, 1, 2)
    )
    assert one.dtype == torch.float32
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_model_whose_rows_see_each_other_is_refused(tiny, units, tmp_path, monkeypatch):
    split = Sequences(prepared_of(tmp_path / "data", packed(units, 2)).sequences("train"))
    model = load_scorer(tiny, quantization="none", device=CPU, dtype=torch.float32)
    found = check_scores_are_the_rows_own(model, split, torch.float32)
    assert max(found.values()) < 1e-3

    def leaking(module, query, key, value, mask, row_starts=None, **rest):
        return rows_attention(module, query, key, value, None, **rest)

    monkeypatch.setitem(AttentionInterface._global_mapping, ROWS_ATTENTION, leaking)
    with pytest.raises(CheckFailed, match="scores a row otherwise"):
        check_scores_are_the_rows_own(model, split, torch.float32)


def test_a_reward_model_is_not_served(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "name: judge\nmodel: {base: tiny}\ndata: {sources: [{path: rows.jsonl}]}\n"
        "training: {method: reward}\n"
    )
    recipe = load_recipe(path)
    assert recipe.training.method == "reward"
    project = Project(recipe, Run(tmp_path / "runs" / "judge"), QuietView())
    assert "AutoModelForSequenceClassification" in what_next(project)
    assert "llmkit serve" not in what_next(project)
    with pytest.raises(UsageError, match=r"no chat endpoint can serve it.*SequenceClassification"):
        serve_run_or_model(str(tmp_path), [], None, None, unverified=True)
