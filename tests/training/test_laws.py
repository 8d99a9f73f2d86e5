"""What must hold of every training: padding, order, clipping, decay, and what changes nothing."""

import math

import pytest
import torch
from preference_units import pairs
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from llmkit.models import trained
from llmkit.models.adapters import attach, base_of
from llmkit.models.loading import load_base, load_scorer
from llmkit.models.merging import save_model
from llmkit.training import train as training
from llmkit.training.batching import Sequences, collate
from llmkit.training.checkpoints import last_whole
from llmkit.training.cross_entropy import CrossEntropy
from llmkit.training.distillation import Distillation
from llmkit.training.events import read_events
from llmkit.training.loss import row_log_probabilities
from llmkit.training.objective import accept_objectives
from llmkit.training.progress import Diverged
from llmkit.training.reward import Reward
from llmkit.training.settings import DistillationConfig, Freeze, LoraAdapter
from llmkit.training.shares import Share
from llmkit.training.trainer import ObjectiveTrainer, measure

CPU = torch.device("cpu")
FULL = {"kind": "full"}
STILL = {"warmup_steps": 0, "schedule": "constant"}


@pytest.fixture
def exact(monkeypatch):
    """In float32, where laws are exact."""
    for module in ("llmkit.training.train", "llmkit.models.loading"):
        monkeypatch.setattr(f"{module}.compute_dtype", lambda device: torch.float32)


@pytest.fixture
def trainers(monkeypatch):
    """Every trainer that is made."""
    made = []

    class Kept(ObjectiveTrainer):
        def __init__(self, **arguments):
            super().__init__(**arguments)
            made.append(self)

    monkeypatch.setattr(training, "ObjectiveTrainer", Kept)
    return made


def _rows(sequences):
    return [s.row(index) for s in sequences for index in range(len(s.row_lengths))]


def _padded(rows, side):
    """Rows as transformers takes them: ids, attention mask, positions and labels."""
    longest = max(len(row.input_ids) for row in rows)
    found = {name: [] for name in ("input_ids", "attention_mask", "position_ids", "labels")}
    for row in rows:
        ids, gap = row.input_ids.tolist(), [0] * (longest - len(row.input_ids))
        labels = [i if s else -100 for i, s in zip(ids, row.supervised, strict=True)]
        both = (lambda own, pad: pad + own) if side == "left" else (lambda own, pad: own + pad)
        found["input_ids"].append(both(ids, gap))
        found["attention_mask"].append(both([1] * len(ids), gap))
        found["position_ids"].append(both(list(range(len(ids))), gap))
        found["labels"].append(both(labels, [-100] * len(gap)))
    return {name: torch.tensor(values) for name, values in found.items()}


def _steps(folder):
    return [e for e in read_events(folder / "events.jsonl") if e["event"] == "step"]


def _weights(folder):
    (file,) = (folder / "result").glob("*.safetensors")
    return load_file(file)


def _same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_loss_is_that_of_transformers_on_padded_rows(tiny, tiny_model, prepared, side):
    sequences = list(Sequences(prepared().sequences("train")))
    accept_objectives(tiny_model)
    ours = measure(tiny_model, CrossEntropy(), sequences, torch.float32)["loss"]
    plain = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    with torch.no_grad():
        theirs = float(plain(**_padded(_rows(sequences), side)).loss)
    assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_log_probabilities_are_those_of_transformers_on_padded_rows(tiny, tiny_model, side):
    rows = [row.without_kinds() for row in _rows(pairs(4))]
    plain = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    batch = _padded(rows, side)
    labels = batch.pop("labels")[:, 1:]
    with torch.no_grad():
        each = plain(**batch).logits[:, :-1].log_softmax(-1)
        theirs = each.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        theirs = (theirs * (labels >= 0)).sum(-1)
        ours = row_log_probabilities(tiny_model, collate(rows))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("method", ["reward", "distill"])
def test_a_batch_of_many_has_the_loss_and_gradients_of_its_parts(tiny, competent, prepared, method):
    """Reward models and distillation; the other methods have a test of this of their own."""
    if method == "reward":
        model = load_scorer(tiny, quantization="none", device=CPU, dtype=torch.float32)
        parts, objective = pairs(5), Reward()
    else:
        teacher, model = (
            load_base(folder, quantization="none", device=CPU, dtype=torch.float32)
            for folder in (competent, tiny)
        )
        parts = _rows(Sequences(prepared(8).sequences("train")))
        objective = Distillation(DistillationConfig(teacher="teacher"), teacher)
    model = attach(model, LoraAdapter(rank=4), seed=0)
    totals = objective.count(collate(parts))
    found = []
    for batches in ([collate(parts)], [collate([part]) for part in parts]):
        model.zero_grad()
        loss = sum(objective.loss(base_of(model), batch, totals).value for batch in batches)
        loss.backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.requires_grad]
        found.append((float(loss.detach()), gradients))
    (whole, one), (sum_of_parts, other) = found
    assert whole == pytest.approx(sum_of_parts, rel=1e-5)
    for ours, expected in zip(one, other, strict=True):
        assert (ours - expected).norm() <= 1e-4 * expected.norm() + 1e-7


def test_distilling_accumulates_to_one_batch_of_all_rows(exact, run, competent, prepared, tmp_path):
    data = prepared(30)
    settings = {
        "method": "distill",
        "distillation": {"teacher": "competent"},
        "teacher": competent,
        "max_steps": 2,
        "learning_rate": 2e-3,
        **STILL,
    }
    run(data, tmp_path / "one", batch={"rows": 4}, **settings)
    run(data, tmp_path / "four", batch={"rows": 1, "accumulate": 4}, **settings)
    for whole, parts in zip(_steps(tmp_path / "one"), _steps(tmp_path / "four"), strict=True):
        for name in ("loss", "divergence", "cross_entropy", "supervised", "gradient_norm"):
            assert parts[name] == pytest.approx(whole[name], rel=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"adapter": {"rank": 4, "rslora": True, "dropout": 0.2, "lora_plus": 4.0}},
        {"optimizer": "adamw_8bit", "adapter": {"kind": "freeze", "layers": 1, "head": True}},
        {"method": "distill", "distillation": {"teacher": "competent"}},
    ],
    ids=["every noise", "8-bit moments", "distill"],
)
def test_resumed_is_uninterrupted_bitwise(run, prepared, competent, tmp_path, settings):
    data = prepared(40, validation=4)
    settings = {
        "max_steps": 7,
        "checkpoint_every": 2,
        "evaluate_every": 3,
        "neftune_alpha": 5.0,
        "weight_decay": 0.1,
        "adapter": {"rank": 4, "dropout": 0.2},
        "teacher": competent if "method" in settings else None,
        **settings,
    }
    run(data, tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "cut", stop_after=5, **settings)
    run(data, tmp_path / "cut", resume=True, **settings)
    assert _same(_weights(tmp_path / "whole"), _weights(tmp_path / "cut"))


def test_looking_at_the_validation_loss_changes_nothing(run, prepared, tmp_path):
    data = prepared(40, validation=4)
    settings = {"max_steps": 5, "neftune_alpha": 5.0, "adapter": {"rank": 4, "dropout": 0.2}}
    run(data, tmp_path / "seldom", **settings)
    run(data, tmp_path / "often", evaluate_every=1, **settings)
    assert _same(_weights(tmp_path / "seldom"), _weights(tmp_path / "often"))


def test_noise_and_dropout_are_of_training_alone(run, trainers, prepared, tmp_path):
    data = prepared(24, validation=4)
    adapter = {"rank": 4, "dropout": 0.5}
    figures = run(data, tmp_path, max_steps=4, neftune_alpha=20.0, adapter=adapter)
    (trainer,) = trainers
    held_out = list(Sequences(data.sequences("validation")))
    trainer.model.train()
    found = [measure(trainer.model, CrossEntropy(), held_out, trainer.dtype) for _ in "ab"]
    assert found[0] == found[1]
    assert found[0]["loss"] == figures["validation_loss_end"]
    assert trainer.model.training  # it goes on as it was


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_learning_rates_are_a_function_of_optimiser_steps(run, prepared, tmp_path, schedule):
    steps, warm, peak = 9, 3, 1e-2
    run(
        prepared(24),
        tmp_path,
        max_steps=steps,
        warmup_steps=warm,
        learning_rate=peak,
        schedule=schedule,
        batch={"accumulate": 2},
    )

    def rate(step):
        if step < warm:
            return peak * step / warm
        done = (step - warm) / (steps - warm)
        falls = {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1}
        return peak * falls[schedule]

    found = [event["learning_rate"] for event in _steps(tmp_path)]
    assert found == pytest.approx([rate(step) for step in range(steps)], abs=1e-9)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_gradient_of_a_whole_step_is_clipped(exact, run, prepared, tiny, tmp_path, accumulate):
    settings = {"max_steps": 1, "optimizer": "sgd", "learning_rate": 1.0, "adapter": FULL, **STILL}
    batch = {"accumulate": accumulate}
    run(prepared(24), tmp_path, max_grad_norm=1e-2, batch=batch, **settings)
    before = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).state_dict()
    moved = sum(float((w - before[n]).norm() ** 2) for n, w in _weights(tmp_path).items()) ** 0.5
    assert _steps(tmp_path)[0]["gradient_norm"] > 0.1
    assert moved == pytest.approx(1e-2, rel=1e-2)


@pytest.mark.parametrize("adapter", [FULL, {"rank": 4}, {"rank": 4, "lora_plus": 4.0}])
def test_matrices_decay_and_norms_do_not(run, trainers, prepared, tmp_path, adapter):
    run(prepared(8), tmp_path, max_steps=1, weight_decay=0.3, adapter=adapter)
    (trainer,) = trainers
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    decays = {
        names[id(p)]: group["weight_decay"]
        for group in trainer.optimizer.optimizer.param_groups
        for p in group["params"]
    }
    assert len(decays) == sum(p.requires_grad for p in trainer.model.parameters())
    for name, decay in decays.items():
        assert decay == (0 if "norm" in name else 0.3)


def test_the_last_layers_are_those_next_to_the_head(tiny, tmp_path):
    base = load_base(tiny, quantization="none", device=CPU, dtype=torch.float32)
    config = Freeze(kind="freeze", layers=1)
    model = trained.make_trainable(base, config, 0, [], dtype=torch.float32, initial=tmp_path)
    trains = {name for name, p in model.named_parameters() if p.requires_grad}
    last = {name for name, _ in model.named_parameters() if "layers.1." in name}
    assert trains == last | {"model.norm.weight"}


def test_every_seed_and_every_epoch_has_an_order_of_its_own():
    orders = []
    for seed in (0, 1, 2):
        share = Share(50, 2, seed, rank=0, processes=1)
        for epoch in (0, 1, 2):
            share.set_epoch(epoch)
            order = [turn.place for batch in share for turn in batch]
            assert sorted(order) == list(range(50))
            assert order == [turn.place for batch in share for turn in batch]
            orders.append(tuple(order))
    assert len(set(orders)) == 9
    assert tuple(range(50)) not in orders


def test_the_seed_decides_what_adapters_start_as(tiny):
    starts = []
    for seed in (1, 1, 2):
        base = load_base(tiny, quantization="none", device=CPU, dtype=torch.float32)
        model = attach(base, LoraAdapter(rank=4), seed)
        parameters = model.named_parameters()
        starts.append({n: p.detach().clone() for n, p in parameters if "lora_A" in n})
    assert _same(starts[0], starts[1])
    assert not any(torch.equal(starts[0][name], starts[2][name]) for name in starts[0])


def test_the_seed_decides_rows_adapters_and_noise(run, prepared, tmp_path):
    data = prepared(24)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(data, tmp_path / name, max_steps=2, seed=seed, neftune_alpha=5.0)
    assert _same(_weights(tmp_path / "a"), _weights(tmp_path / "b"))
    assert not _same(_weights(tmp_path / "a"), _weights(tmp_path / "c"))
    tokens = [[event["tokens"] for event in _steps(tmp_path / name)] for name in "abc"]
    assert tokens[0] == tokens[1] != tokens[2]


def test_weights_that_a_step_broke_are_not_saved(run, prepared, tmp_path, monkeypatch):
    """The loss of that step is still a number."""
    own = ObjectiveTrainer.create_optimizer

    def breaking(trainer, model=None):
        optimizer = own(trainer, model)
        weight = next(p for p in trainer.model.parameters() if p.requires_grad)
        optimizer.register_step_post_hook(lambda *_: weight.data.fill_(math.nan))
        return optimizer

    monkeypatch.setattr(ObjectiveTrainer, "create_optimizer", breaking)
    with pytest.raises(Diverged, match="values that are no numbers"):
        run(prepared(8), tmp_path, max_steps=3, checkpoint_every=1)
    assert last_whole(tmp_path / "checkpoints") is None


def test_a_tuned_model_stops_by_itself(run, tiny, prepared, tmp_path):
    data = prepared(6)
    run(data, tmp_path, adapter=FULL, epochs=40, learning_rate=4e-3, max_grad_norm=5.0)
    base = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    tuned = trained.load(base, tmp_path / "result")
    stops = data.figures["stop_ids"]
    save_model(tuned, tiny, tmp_path / "merged", "{{ messages }}", stops)
    sample = data.samples()[0]
    answer = sample.supervised.index(True)
    prompt = torch.tensor([sample.ids[:answer]])
    ended = []
    for folder in (tmp_path / "merged", tiny):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        written = model.generate(prompt, max_new_tokens=60, do_sample=False)[0, answer:].tolist()
        ended.append(written[-1] in stops and len(written) < 60)
    assert ended == [True, False]
