"""Training as a whole, on the tiny model: resumed = uninterrupted, and what must be refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llmkit.errors import CheckFailed, UsageError
from llmkit.models.settings import ModelConfig
from llmkit.training.batching import Sequences
from llmkit.training.checkpoints import all_checkpoints, last_whole, step_of
from llmkit.training.cross_entropy import CrossEntropy
from llmkit.training.events import read_events
from llmkit.training.objective import accept_objectives
from llmkit.training.progress import Diverged
from llmkit.training.settings import TrainingConfig
from llmkit.training.step_count import plan_steps
from llmkit.training.train import Places, train
from llmkit.training.trainer import measure


class Silent:
    """A view that remembers what it was told, and can end a training like a power cut."""

    def __init__(self, stop_after: int | None = None):
        self.said: list[str] = []
        self.stop_after = stop_after

    def step(self, event, total_steps):
        if self.stop_after and event["step"] >= self.stop_after:
            raise KeyboardInterrupt

    def say(self, text):
        self.said.append(text)


def _train(tiny, data, folder: Path, view=None, resume=False, quantization="none", **settings):
    folder.mkdir(exist_ok=True)
    adapter = folder / "adapter"
    adapter.mkdir(exist_ok=True)
    config = TrainingConfig.model_validate(
        # Trainings are compared bit by bit: forms chosen by the clock might differ.
        {"kernels": "fused", "learning_rate": 1e-2, "adapter": {"rank": 4}, "warmup_steps": 1}
        | settings
    )
    model = ModelConfig(base="tiny", device="cpu", quantization=quantization)
    figures = train(
        config,
        model,
        data,
        Places(tiny, folder / "checkpoints", folder / "events.jsonl", adapter),
        view or Silent(),
        resume_from=last_whole(folder / "checkpoints") if resume else None,
    )
    return figures, load_file(adapter / "adapter_model.safetensors")


def _same(left, right) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_the_loss_falls_and_the_adapter_is_float32(tiny, prepared, tmp_path):
    figures, weights = _train(tiny, prepared(validation=4), tmp_path, epochs=12)
    assert figures["loss_last"] < 0.6 * figures["loss_first"]
    assert figures["validation_loss_end"] < figures["validation_loss_start"]
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert figures["trainable_parameters"] == sum(t.numel() for t in weights.values())


def test_the_loss_at_the_start_is_the_base_models_own(tiny, prepared, tmp_path, tiny_model):
    data = prepared(validation=4)
    figures, _ = _train(tiny, data, tmp_path, max_steps=2)
    accept_objectives(tiny_model)
    held_out = list(Sequences(data.sequences("validation")))
    own = measure(tiny_model, CrossEntropy(), held_out, torch.float32)["loss"]
    assert figures["validation_loss_start"] == pytest.approx(own, rel=0.02)  # bfloat16 or float32


def test_resumed_training_gives_bitwise_the_uninterrupted_adapter(tiny, prepared, tmp_path):
    data = prepared(40, validation=4)
    settings = {"epochs": 6, "checkpoint_every": 3, "adapter": {"rank": 4, "dropout": 0.1}}
    _, whole = _train(tiny, data, tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        _train(tiny, data, tmp_path / "cut", Silent(stop_after=7), **settings)
    view = Silent()
    figures, resumed = _train(tiny, data, tmp_path / "cut", view, resume=True, **settings)
    assert "resuming after step 6" in view.said
    assert _same(whole, resumed)
    steps = [e["step"] for e in read_events(tmp_path / "cut/events.jsonl") if e["event"] == "step"]
    assert steps == list(range(1, figures["steps"] + 1))


def test_a_broken_newest_checkpoint_is_passed_over(tiny, prepared, tmp_path):
    data = prepared(40)
    settings = {"epochs": 6, "checkpoint_every": 3}
    _, whole = _train(tiny, data, tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        _train(tiny, data, tmp_path / "cut", Silent(stop_after=7), **settings)
    newest = all_checkpoints(tmp_path / "cut" / "checkpoints")[-1]
    broken = newest / "adapter_model.safetensors"
    broken.write_bytes(broken.read_bytes()[:100])
    view = Silent()
    _, resumed = _train(tiny, data, tmp_path / "cut", view, resume=True, **settings)
    assert "resuming after step 3" in view.said
    assert _same(whole, resumed)


def test_accumulating_is_one_batch_of_all_rows(tiny, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr("llmkit.training.train.compute_dtype", lambda device: torch.float32)
    monkeypatch.setattr("llmkit.models.loading.compute_dtype", lambda device: torch.float32)
    data = prepared(60)
    one, _ = _train(tiny, data, tmp_path / "one", batch={"rows": 4}, max_steps=1, warmup_steps=0)
    two, _ = _train(
        tiny,
        data,
        tmp_path / "two",
        batch={"rows": 1, "accumulate": 4},
        max_steps=1,
        warmup_steps=0,
    )
    first, second = (
        next(e for e in read_events(tmp_path / side / "events.jsonl") if e["event"] == "step")
        for side in ("one", "two")
    )
    assert first["supervised"] == second["supervised"]
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-5)
    assert first["gradient_norm"] == pytest.approx(second["gradient_norm"], rel=1e-4)


def test_a_learning_rate_that_destroys_the_model_is_stopped(competent, prepared, tmp_path):
    with pytest.raises(Diverged, match=r"(?s)above its start.*learning_rate"):
        _train(
            competent,
            prepared(40),
            tmp_path,
            learning_rate=1.0,
            epochs=6,
            patience=5,
            checkpoint_every=1,
            schedule="constant",
        )
    losses = {
        event["step"]: event["loss"]
        for event in read_events(tmp_path / "events.jsonl")
        if event["event"] == "step"
    }
    assert len(losses) < 40
    kept = last_whole(tmp_path / "checkpoints")  # written only while the loss is where it should be
    assert kept is None or losses[int(kept.name.rpartition("-")[2])] < 2.5


def test_no_checkpoint_is_called_good_whose_own_loss_is_ruined(competent, prepared, tmp_path):
    """The step that ruins a model has a good loss: it was measured before."""
    settings = {"learning_rate": 1e9, "warmup_steps": 0, "checkpoint_every": 1, "patience": 3}
    with pytest.raises(Diverged) as caught:
        _train(competent, prepared(40), tmp_path, epochs=6, **settings)
    assert [path.name for path in all_checkpoints(tmp_path / "checkpoints")] == ["checkpoint-1"]
    said = str(caught.value)
    assert "No checkpoint was saved while the loss was good." in said
    assert "training.learning_rate=0.0002 (it was 1e+09)" in said
    assert "begins anew, and removes" in said


@pytest.mark.parametrize("kept", [1, 2])
def test_the_checkpoint_before_the_ruin_is_named_and_kept(
    competent, prepared, tmp_path, kept, monkeypatch
):
    from llmkit.training.trainer import Watch

    original = Watch.on_step_begin

    def ruin(self, args, state, control, **given):
        if state.global_step == 4:  # the fifth step
            for group in given["optimizer"].param_groups:
                group["lr"] = 1e9
        return original(self, args, state, control, **given)

    monkeypatch.setattr(Watch, "on_step_begin", ruin)
    settings = {"warmup_steps": 0, "checkpoint_every": 1, "patience": 3, "keep_checkpoints": kept}
    with pytest.raises(Diverged) as caught:
        _train(competent, prepared(40), tmp_path, learning_rate=1e-4, epochs=6, **settings)
    checkpoints = tmp_path / "checkpoints"
    assert [step_of(path) for path in all_checkpoints(checkpoints)] == [4, 5]
    said = str(caught.value)
    assert f"The last good checkpoint is {checkpoints / 'checkpoint-4'}." in said
    assert f"(name={tmp_path.name}-2), or remove {checkpoints} first" in said


def test_one_checkpoint_is_kept_where_one_is_asked_for(tiny, prepared, tmp_path):
    _train(tiny, prepared(24), tmp_path, max_steps=4, checkpoint_every=1, keep_checkpoints=1)
    assert [path.name for path in all_checkpoints(tmp_path / "checkpoints")] == ["checkpoint-4"]


def test_a_short_training_that_ends_above_its_start_is_refused(competent, prepared, tmp_path):
    with pytest.raises(Diverged, match="made the model worse"):
        _train(
            competent,
            prepared(40, validation=4),
            tmp_path,
            learning_rate=1.0,
            max_steps=3,
            schedule="constant",
        )


def test_a_loss_that_is_not_a_number_stops_at_once(tiny, prepared, tmp_path, monkeypatch):
    from llmkit.training import cross_entropy

    calls = []

    def poisoned(model, batch):
        calls.append(1)
        loss = original(model, batch)
        return loss * float("nan") if len(calls) > 12 else loss

    original = cross_entropy.supervised_loss
    monkeypatch.setattr(cross_entropy, "supervised_loss", poisoned)
    with pytest.raises(Diverged, match=r"(?s)the loss is nan.*last good checkpoint is"):
        _train(tiny, prepared(40), tmp_path, epochs=20, checkpoint_every=1)
    good = last_whole(tmp_path / "checkpoints")
    weights = load_file(good / "adapter_model.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_a_warm_up_as_long_as_the_training_is_refused_before_loading(prepared):
    config = TrainingConfig(warmup_steps=50, epochs=2)
    with pytest.raises(UsageError, match=r"warmup_steps: 50 of \d+ steps"):
        plan_steps(config, 10)
    assert plan_steps(TrainingConfig(warmup_steps=19, epochs=2), 10).steps == 20


def test_a_constant_schedule_warms_up_as_well(tiny, prepared, tmp_path):
    _train(tiny, prepared(), tmp_path, max_steps=6, schedule="constant", warmup_steps=4)
    events = read_events(tmp_path / "events.jsonl")
    rates = [event["learning_rate"] for event in events if event["event"] == "step"]
    assert rates == sorted(rates)
    assert len(set(rates)) > 3
    assert rates[-1] == 1e-2


def test_several_gpus_do_not_multiply_the_batch(tmp_path, monkeypatch):
    from llmkit.training import trainer_arguments as trainer

    monkeypatch.setattr(trainer.TrainingArguments, "n_gpu", property(lambda _: 2))
    config = TrainingConfig(batch={"rows": 3})
    found = trainer.arguments(
        config, plan_steps(config, 9), tmp_path, torch.device("cpu"), torch.float32
    )
    assert found._n_gpu <= 1


def test_a_training_killed_after_its_last_step_is_not_trained_further(tiny, prepared, tmp_path):
    data = prepared(40)
    settings = {"max_steps": 6, "checkpoint_every": 1, "schedule": "constant"}
    figures, one = _train(tiny, data, tmp_path / "run", **settings)
    again, other = _train(tiny, data, tmp_path / "run", resume=True, **settings)
    assert _same(one, other)
    assert again["loss_last"] == figures["loss_last"]
    events = read_events(tmp_path / "run" / "events.jsonl")
    assert [e["step"] for e in events if e["event"] == "step"] == [1, 2, 3, 4, 5, 6]


def test_a_model_that_computes_more_than_our_loss_is_refused(tiny_model, prepared, monkeypatch):
    from llmkit.training.isolation import check_loss_is_the_models_own

    sequences = Sequences(prepared(8).sequences("train"))
    found = check_loss_is_the_models_own(tiny_model, sequences, torch.float32)
    assert found["kl_own_forward"] < 1e-6
    forward = tiny_model.forward

    def scaled(**inputs):
        output = forward(**inputs)
        output.logits = output.logits * 0.3
        return output

    monkeypatch.setattr(tiny_model, "forward", scaled)
    with pytest.raises(CheckFailed, match="computes something that training would leave out"):
        check_loss_is_the_models_own(tiny_model, sequences, torch.float32)


def test_token_ids_that_the_model_has_no_embedding_for_are_refused(tiny_model, prepared):
    from llmkit.training.token_checks import refuse_ids_without_embedding

    sequences = Sequences(prepared(8).sequences("train"))
    refuse_ids_without_embedding(tiny_model, sequences)
    tiny_model.resize_token_embeddings(10)
    with pytest.raises(UsageError, match="has embeddings for 0 to 9"):
        refuse_ids_without_embedding(tiny_model, sequences)


@pytest.mark.parametrize(
    ("targets", "words"), [(["q_prj"], "q_proj"), (["nothing_alike"], "Nearest: down_proj")]
)
def test_targets_that_match_nothing_are_refused_with_the_nearest(
    tiny_model, targets, words, tmp_path
):
    from llmkit.models.adapters import attach
    from llmkit.training.settings import LoraAdapter

    with pytest.raises(UsageError, match=words):
        attach(tiny_model, LoraAdapter(rank=4, targets=targets), seed=0)


def test_a_rank_above_the_smallest_dimension_is_refused(tiny_model):
    from llmkit.models.adapters import attach
    from llmkit.training.settings import LoraAdapter

    with pytest.raises(UsageError, match="smallest dimension"):
        attach(tiny_model, LoraAdapter(rank=65), seed=0)


def test_the_head_is_not_adapted_by_all_linear(tiny_model):
    from llmkit.models.adapters import attach
    from llmkit.training.settings import LoraAdapter

    model = attach(tiny_model, LoraAdapter(rank=4), seed=0)
    adapted = {n for n, p in model.named_parameters() if p.requires_grad}
    assert adapted
    assert not any("lm_head" in name for name in adapted)


def test_an_adapter_names_its_base_and_no_local_path(tiny, prepared, tmp_path):
    _train(tiny, prepared(), tmp_path, max_steps=2)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"
    assert str(tiny) not in json.dumps(config)
