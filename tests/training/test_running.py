"""How a training runs: what saves memory changes nothing, what stops it stops in time."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from llmkit.errors import UsageError
from llmkit.models.loading import load_base
from llmkit.training.batching import Sequences, collate
from llmkit.training.checkpoints import all_checkpoints, step_of
from llmkit.training.embedding_noise import EmbeddingNoise
from llmkit.training.events import read_events
from llmkit.training.loss import supervised_loss
from llmkit.training.progress import Best, Guard
from llmkit.training.settings import EarlyStopping, TrainingConfig
from llmkit.training.step_count import plan_steps
from llmkit.training.trainer import Watch
from llmkit.training.trainer_arguments import refuse_what_cannot_run

CPU = torch.device("cpu")


@pytest.fixture
def exact(monkeypatch):
    """In float32, where laws are exact."""
    for module in ("llmkit.training.train", "llmkit.models.loading"):
        monkeypatch.setattr(f"{module}.compute_dtype", lambda device: torch.float32)


def _steps(folder):
    return [e for e in read_events(folder / "events.jsonl") if e["event"] == "step"]


def _losses(folder):
    return [event["loss"] for event in _steps(folder)]


@pytest.mark.parametrize("kind", [{"rank": 4}, {"kind": "full"}], ids=["lora", "full"])
@pytest.mark.parametrize("way", [True, "offload"])
def test_checkpointed_layers_give_the_same_training(exact, run, prepared, tmp_path, kind, way):
    data = prepared(40)
    settings = {"max_steps": 4, "adapter": kind, "learning_rate": 3e-3}
    run(data, tmp_path / "plain", **settings)
    run(data, tmp_path / "less", gradient_checkpointing=way, **settings)
    plain, less = _steps(tmp_path / "plain"), _steps(tmp_path / "less")
    assert [e["loss"] for e in less] == pytest.approx([e["loss"] for e in plain], rel=1e-5)
    assert less[0]["gradient_norm"] == pytest.approx(plain[0]["gradient_norm"], rel=1e-4)
    assert plain[-1]["loss"] < plain[0]["loss"]


@pytest.mark.parametrize(
    "adapter",
    [
        {"kind": "full"},
        {"kind": "freeze", "layers": 1},
        {"rank": 4, "init": "pissa"},
        {"rank": 4, "dora": True, "lora_plus": 4.0},
    ],
    ids=lambda adapter: adapter.get("kind") or adapter.get("init") or "dora",
)
def test_every_kind_resumes_bitwise(run, prepared, tmp_path, adapter):
    data = prepared(40, validation=4)
    settings = {"max_steps": 8, "checkpoint_every": 3, "adapter": adapter, "neftune_alpha": 5.0}
    run(data, tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "cut", stop_after=5, **settings)
    run(data, tmp_path / "cut", resume=True, **settings)
    for file in (tmp_path / "whole" / "result").glob("*.safetensors"):
        one, other = load_file(file), load_file(tmp_path / "cut" / "result" / file.name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_noise_has_the_scale_of_each_rows_own_length(tiny_model, prepared):
    sequence = next(s for s in Sequences(prepared().sequences("train")) if len(s.row_lengths) > 1)
    batch = collate([sequence])
    embeddings = tiny_model.get_input_embeddings()
    plain = embeddings(batch["input_ids"])
    noise = EmbeddingNoise(tiny_model, alpha=5.0)
    noise.row_starts = batch["row_starts"]
    assert torch.equal(embeddings(batch["input_ids"]), plain)  # not while evaluating
    tiny_model.train()
    moved = embeddings(batch["input_ids"]) - plain
    for start, length in zip(batch["row_starts"], sequence.row_lengths.tolist()):
        widest = 5.0 / (length * plain.shape[-1]) ** 0.5
        row = moved[0, start : start + length].abs()
        assert row.max() <= widest * 1.001
        assert row.mean() == pytest.approx(widest / 2, rel=0.1)


def test_b_learns_faster_than_a_under_lora_plus(run, prepared, tmp_path):
    data = prepared(24)
    settings = {"max_steps": 1, "warmup_steps": 0, "learning_rate": 1e-3, "schedule": "constant"}
    moved = {}
    for ratio in (None, 8.0):
        folder = tmp_path / str(ratio)
        run(data, folder, adapter={"rank": 4, "lora_plus": ratio}, **settings)
        weights = load_file(folder / "result" / "adapter_model.safetensors")
        moved[ratio] = max(float(w.abs().max()) for n, w in weights.items() if "lora_B" in n)
    # Adam's first step moves every weight by the learning rate.
    assert moved[None] == pytest.approx(1e-3, rel=0.05)
    assert moved[8.0] == pytest.approx(8e-3, rel=0.05)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit", "lion", "adafactor", "sgd"])
def test_every_optimizer_of_a_cpu_lowers_the_loss(run, prepared, tmp_path, optimizer):
    rate = {"lion": 1e-3, "sgd": 0.3}.get(optimizer, 1e-2)
    run(prepared(40), tmp_path, optimizer=optimizer, learning_rate=rate, epochs=4)
    losses = _losses(tmp_path)
    assert losses[-1] < 0.95 * losses[0]


def test_what_only_cuda_has_is_refused_before_anything_is_loaded():
    config = TrainingConfig(optimizer="paged_adamw_8bit")
    with pytest.raises(UsageError, match=r"paged_adamw_8bit.*trains on cpu"):
        refuse_what_cannot_run(config, CPU)
    refuse_what_cannot_run(config, torch.device("cuda"))


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="mlflow is not installed"):
        refuse_what_cannot_run(TrainingConfig(trackers=("mlflow",)), CPU)


def test_evaluations_that_no_longer_improve_end_the_training():
    best = Best(EarlyStopping(evaluations=2, min_delta=0.1), [])
    for step, loss in [(10, 2.0), (20, 1.5), (30, 1.45), (30, 1.45)]:
        best.see(step, loss)
    assert (best.step, best.exhausted) == (30, False)  # lower, but not by enough: one miss
    best.see(40, 1.5)
    assert best.exhausted
    events = [{"event": "validation", "step": s, "loss": x} for s, x in [(0, 0.1), (10, 2.0)]]
    assert Best(None, events).step == 10  # before the first step there is nothing to keep


def test_the_best_evaluation_is_kept_and_training_ends_early(run, prepared, tmp_path):
    data = prepared(40, validation=4)
    figures = run(
        data,
        tmp_path,
        max_steps=80,
        learning_rate=3e-2,
        schedule="constant",
        evaluate_every=2,
        early_stopping={"evaluations": 3},
        keep="best",
        keep_checkpoints=1,
        patience=100,
    )
    seen = {
        e["step"]: e["loss"]
        for e in read_events(tmp_path / "events.jsonl")
        if e["event"] == "validation" and e["step"]
    }
    best = min(seen, key=seen.get)
    assert figures["steps"] < 80
    assert figures["kept_step"] == best < figures["steps"]
    assert figures["validation_loss_end"] == seen[best]
    assert best in {step_of(path) for path in all_checkpoints(tmp_path / "checkpoints")}
    kept = load_file(tmp_path / "result" / "adapter_model.safetensors")
    saved = load_file(tmp_path / f"checkpoints/checkpoint-{best}/adapter_model.safetensors")
    assert all(torch.equal(kept[name], saved[name]) for name in kept)


def _view(say):
    return SimpleNamespace(step=lambda event, total_steps: None, say=say)


@pytest.mark.parametrize(
    "how", [shutil.rmtree, lambda path: (path / "trainer_state.json").unlink()]
)
def test_a_best_checkpoint_that_is_gone_at_the_end_is_said(run, prepared, tmp_path, how):
    def say(text):
        if text.startswith("stopping after"):
            for path in all_checkpoints(tmp_path / "checkpoints"):
                how(path)

    words = r"the checkpoint of step \d+, the best evaluation, is gone or broken.*keep=last"
    with pytest.raises(UsageError, match=words):
        run(
            prepared(40, validation=4),
            tmp_path,
            view=_view(say),
            max_steps=80,
            learning_rate=3e-2,
            schedule="constant",
            evaluate_every=2,
            early_stopping={"evaluations": 1},
            patience=100,
            keep="best",
        )


def test_a_step_larger_than_the_data_is_said_to_take_all_of_it(run, prepared, tmp_path):
    data, said = prepared(6, packing=False), []
    batch = {"rows": 2, "accumulate": 4}
    figures = run(data, tmp_path, view=_view(said.append), batch=batch, max_steps=2)
    assert said[0] == "a step would take 8 sequences, and there are 6: it takes all"
    assert figures["sequences"] == 6
    said.clear()
    batch = {"rows": 2, "accumulate": 3}
    run(data, tmp_path / "fits", view=_view(said.append), batch=batch, max_steps=2)
    assert not [line for line in said if "takes all" in line]


def test_a_stopped_training_is_not_trained_further(run, prepared, tmp_path):
    data = prepared(40, validation=4)
    settings = {
        "max_steps": 80,
        "learning_rate": 3e-2,
        "schedule": "constant",
        "evaluate_every": 2,
        "early_stopping": {"evaluations": 1},
        "patience": 100,
        "keep": "best",
    }
    first = run(data, tmp_path, **settings)
    again = run(data, tmp_path, resume=True, **settings)
    assert again["steps"] == first["steps"]
    assert again["kept_step"] == first["kept_step"]
    seen = [e["step"] for e in read_events(tmp_path / "events.jsonl") if e["event"] == "validation"]
    assert len(seen) == len(set(seen))  # the last of them is not made again


def _watched(tmp_path, losses, **settings):
    """The steps after which a training with these losses is saved; the loss before it was 1."""
    config = TrainingConfig(checkpoint_every=2, max_steps=len(losses), **settings)
    run = SimpleNamespace(
        model=torch.nn.Linear(1, 1),
        meter=SimpleNamespace(close=lambda: {"loss": losses[state.global_step - 1]}),
        guard=Guard(1.0, 9),
        best=Best(None, []),
        validate=lambda step: run.best.see(step, losses[step - 1]),
        tidy=lambda checkpoints, config: None,
    )
    watch = Watch(config, plan_steps(config, 99), run)
    arguments, control = SimpleNamespace(output_dir=tmp_path), SimpleNamespace()
    saved = []
    for step in range(1, len(losses) + 1):
        state = SimpleNamespace(global_step=step)
        watch.on_step_end(arguments, state, control)
        if control.should_save:
            saved.append(step)
            watch.on_save(arguments, state, control)
    return saved


def test_a_checkpoint_that_is_due_on_a_bad_step_follows_on_the_next_good_one(tmp_path):
    assert _watched(tmp_path, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]) == [2, 4, 6, 7]
    assert _watched(tmp_path, [0.9, 2.0, 2.0, 2.0, 0.5, 2.0, 2.0]) == [5]


def test_evaluations_are_saved_only_where_the_best_is_kept(tmp_path):
    falling = [1.0, 0.9, 0.8, 0.7, 0.6]
    assert _watched(tmp_path, falling, evaluate_every=1) == [2, 4, 5]
    assert _watched(tmp_path, falling, evaluate_every=1, keep="best") == [1, 2, 3, 4, 5]
    assert _watched(tmp_path, [1.0, 0.5, 0.8, 0.7, 0.6], evaluate_every=3, keep="best") == [
        2,
        3,
        4,
        5,
    ]


def test_evaluations_that_come_once_more_are_no_further_misses(run, prepared, tmp_path):
    data = prepared(40, validation=4)
    settings = {"max_steps": 9, "checkpoint_every": 3, "evaluate_every": 1, "learning_rate": 1e-9}
    # Nothing is learned, so that every evaluation after the first misses; seven may, eight do.
    settings["early_stopping"] = {"evaluations": 7, "min_delta": 0.01}
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path, stop_after=6, **settings)
    assert step_of(all_checkpoints(tmp_path / "checkpoints")[-1]) < 6
    assert run(data, tmp_path, resume=True, **settings)["steps"] == 8


def test_evaluations_of_an_earlier_training_count_for_nothing(run, prepared, tmp_path):
    data = prepared(40, validation=4)
    (tmp_path / "events.jsonl").write_text('{"event": "validation", "step": 1, "loss": 0.01}\n' * 9)
    settings = {"max_steps": 4, "evaluate_every": 2, "early_stopping": {"evaluations": 1}}
    assert run(data, tmp_path, keep="best", **settings)["kept_step"] == 4


def test_the_base_is_left_as_it_was_by_a_noise_free_evaluation(tiny, prepared):
    model = load_base(tiny, quantization="none", device=CPU, dtype=torch.float32)
    batch = collate([Sequences(prepared().sequences("train"))[0]])
    before = float(supervised_loss(model, batch))
    noise = EmbeddingNoise(model, alpha=5.0)
    noise.row_starts = batch["row_starts"]
    assert float(supervised_loss(model, batch)) == before
    model.train()
    assert float(supervised_loss(model, batch)) != before


def test_settings_say_what_they_are():
    assert json.loads(TrainingConfig().model_dump_json())["adapter"]["kind"] == "lora"
