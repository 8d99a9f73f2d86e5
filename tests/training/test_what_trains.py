"""Every way of choosing what trains: it trains, is kept, is put back, and is merged as it was."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from llmkit.errors import UsageError
from llmkit.models import closeness, merging, trained
from llmkit.models.adapters import base_of
from llmkit.models.loading import load_base
from llmkit.training.batching import Sequences, collate
from llmkit.training.loss import supervised_loss
from llmkit.training.settings import TrainingConfig

CPU = torch.device("cpu")
ALL_KINDS = {
    "lora": {"rank": 4},
    "rslora": {"rank": 4, "rslora": True},
    "dora": {"rank": 4, "dora": True},
    "pissa": {"rank": 4, "init": "pissa"},
    "pattern": {"rank": 4, "targets": [r"model\.layers\.1\..*_proj"]},
    "saved": {"rank": 4, "modules_to_save": ["embed_tokens", "lm_head"]},
    "new rows": {"rank": 4},
    "freeze": {"kind": "freeze", "layers": 1},
    "freeze ends": {"kind": "freeze", "layers": 0, "embeddings": True, "head": True},
    "full": {"kind": "full"},
}
NEW_ROWS = [5, 7]


@pytest.fixture(autouse=True)
def _exact(monkeypatch):
    """Laws are exact in float32; bfloat16 products hide them in rounding."""
    monkeypatch.setattr(closeness, "compute_dtype", lambda device: torch.float32)


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def base_folder(request, tiny, tmp_path_factory) -> Path:
    """The tiny model, with a head of its own and without."""
    if not request.param:
        return tiny
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("tied")
    model = AutoModelForCausalLM.from_pretrained(tiny, tie_word_embeddings=True)
    model.tie_weights()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder


def _load(folder, dtype=torch.float32):
    return load_base(folder, quantization="none", device=CPU, dtype=dtype)


def _make(folder, kind, initial, dtype=torch.float32):
    config = TrainingConfig.model_validate({"adapter": ALL_KINDS[kind]}).adapter
    base = _load(folder, trained.base_dtype(config, "none", dtype, folder))
    rows = NEW_ROWS if kind == "new rows" else []
    return trained.make_trainable(base, config, 0, rows, dtype=dtype, initial=initial)


def _learn(model, sequences, steps=3):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model.train()
    for sequence in list(sequences)[:steps]:
        supervised_loss(base_of(model), collate([sequence])).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_what_was_trained_is_kept_put_back_and_merged_as_it_was(
    base_folder, kind, prepared, tmp_path
):
    samples = prepared(validation=6).samples()[:4]
    sequences = Sequences(prepared().sequences("train"))
    model = _make(base_folder, kind, tmp_path)
    if kind != "pissa":
        before = list(closeness.logits_on(model, samples))
        untouched = closeness.compare(before, _load(base_folder), samples)
        assert untouched.kl == pytest.approx(0, abs=1e-6)  # it starts as the base
    _learn(model, sequences)
    reference = list(closeness.logits_on(model, samples))
    assert closeness.compare(reference, _load(base_folder), samples).kl > 0.01  # it learned
    (tmp_path / "result").mkdir()
    trained.save(model, tmp_path / "result", "tiny", tmp_path)
    again = trained.load(_load(base_folder), tmp_path / "result")
    assert closeness.compare(reference, again, samples).kl == pytest.approx(0, abs=2e-6)
    merged = merging.merged_into(_load(base_folder), tmp_path / "result", torch.float32)
    assert closeness.compare(reference, merged, samples).kl == pytest.approx(0, abs=2e-6)
    merged.save_pretrained(tmp_path / "merged")
    served = _load(tmp_path / "merged")
    assert closeness.compare(reference, served, samples).kl == pytest.approx(0, abs=2e-6)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_what_trains_is_float32_and_named(tiny, kind, tmp_path):
    model = _make(tiny, kind, tmp_path, dtype=torch.bfloat16)
    figures = trained.figures(model)
    assert figures["trainable_dtype"] == ["float32"]
    counted = sum(entry["parameters"] for entry in figures["trains"].values())
    assert counted == figures["trainable_parameters"]
    if kind == "lora":
        assert figures["trains"]["model.layers.*.mlp.up_proj.lora_A.weight"]["tensors"] == 2
    if kind == "freeze":
        assert set(figures["trains"]) >= {"model.layers.*.mlp.up_proj.weight", "model.norm.weight"}
        frozen = [p for p in model.parameters() if not p.requires_grad]
        assert {p.dtype for p in frozen} == {torch.bfloat16}
    if kind == "full":
        assert figures["trainable_parameters"] == sum(p.numel() for p in model.parameters())


def test_only_the_rows_of_new_tokens_move(tiny, prepared, tmp_path):
    model = _make(tiny, "new rows", tmp_path)
    _learn(model, Sequences(prepared().sequences("train")))
    (tmp_path / "result").mkdir()
    trained.save(model, tmp_path / "result", "tiny", tmp_path)
    merged = merging.merged_into(_load(tiny), tmp_path / "result", torch.float32)
    for layer in ("get_input_embeddings", "get_output_embeddings"):
        moved = getattr(merged, layer)().weight != getattr(_load(tiny), layer)().weight
        assert set(moved.any(1).nonzero()[:, 0].tolist()) <= set(NEW_ROWS)
    assert (merged.get_output_embeddings().weight != _load(tiny).lm_head.weight).any()


def test_the_gradient_of_new_rows_is_autograds_own(base_folder, prepared, tmp_path):
    model = _make(base_folder, "new rows", tmp_path)
    batch = collate([Sequences(prepared().sequences("train"))[0]])
    supervised_loss(base_of(model), batch).backward()
    ours = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    labels = torch.full_like(batch["input_ids"], -100)
    labels[0, batch["predict_at"] + 1] = batch["shift_labels"]
    output = base_of(model)(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        row_starts=batch["row_starts"],
        use_cache=False,
    )
    torch.nn.functional.cross_entropy(
        output.logits[0, batch["predict_at"]], batch["shift_labels"], reduction="sum"
    ).backward()
    assert any("trainable_tokens" in name for name in ours)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        ({"rank": 4, "targets": ["q_prj"]}, "'q_prj' matches no linear layer.*q_proj"),
        ({"rank": 4, "targets": ["layers.(1"]}, "not a regular expression"),
        ({"rank": 65}, "rank: 65 is above 32, the smallest dimension of model.layers"),
        ({"rank": 4, "modules_to_save": ["embed_token"]}, "no 'embed_token'.*embed_tokens"),
        ({"kind": "freeze", "layers": 3}, "3 of 2 layers"),
    ],
)
def test_what_a_model_does_not_have_is_refused(tiny, adapter, words, tmp_path):
    config = TrainingConfig.model_validate({"adapter": adapter}).adapter
    with pytest.raises(UsageError, match=f"(?s){words}"):
        trained.make_trainable(_load(tiny), config, 0, [], dtype=torch.float32, initial=tmp_path)


@pytest.mark.parametrize("adapter", [{"kind": "full"}, {"rank": 4, "init": "pissa"}])
def test_quantised_weights_are_not_trained(tiny, adapter, tmp_path):
    base = load_base(tiny, quantization="nf4", device=CPU, dtype=torch.bfloat16)
    config = TrainingConfig.model_validate({"adapter": adapter}).adapter
    with pytest.raises(UsageError, match=r"quantised.*model\.quantization=none"):
        trained.make_trainable(base, config, 0, [], dtype=torch.bfloat16, initial=tmp_path)


def test_a_result_of_another_model_is_refused(tiny, tmp_path):
    model = _make(tiny, "full", tmp_path)
    trained.save(model, tmp_path, "tiny", tmp_path)
    other = _load(tiny)
    other.resize_token_embeddings(300)
    with pytest.raises(UsageError, match="was trained on another model"):
        trained.load(other, tmp_path)


def test_settings_that_train_nothing_or_clash_are_refused():
    with pytest.raises(ValidationError, match="nothing would train"):
        TrainingConfig.model_validate({"adapter": {"kind": "freeze", "layers": 0}})
    with pytest.raises(ValidationError, match="pissa"):
        TrainingConfig.model_validate({"adapter": {"init": "pissa", "dora": True}})


def test_tied_means_one_matrix(base_folder, request):
    base = _load(base_folder)
    tied = base.get_output_embeddings().weight is base.get_input_embeddings().weight
    assert tied == ("-tied" in request.node.name or "[tied" in request.node.name)
