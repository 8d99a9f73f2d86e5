"""Distillation: the formula, its gradient, and that a student becomes like its teacher."""

import copy
import json
import shutil
from itertools import pairwise

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from llmkit.beginnings import refuse_another_vocabulary
from llmkit.errors import UsageError
from llmkit.models.loading import load_base
from llmkit.training import distillation
from llmkit.training.batching import Sequences, collate
from llmkit.training.distillation import Distillation
from llmkit.training.events import read_events
from llmkit.training.loss import supervised_logits
from llmkit.training.settings import DistillationConfig

CPU = torch.device("cpu")


@pytest.fixture
def batch(prepared):
    sequences = Sequences(prepared(24).sequences("train"))
    return collate([sequences[0], sequences[1]])


@pytest.fixture
def teacher(competent):
    return load_base(competent, quantization="none", device=CPU, dtype=torch.float32)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks that do not divide the positions, so that their edges are crossed."""
    monkeypatch.setattr(distillation, "CHUNK", 7)


def _objective(teacher, **settings):
    return Distillation(DistillationConfig(teacher="teacher", **settings), teacher)


def _logits(model, batch):
    """All logits, the plain way: the model's own forward pass on each row apart."""
    parts = []
    starts = batch["row_starts"]
    model.set_attn_implementation("eager")
    for start, end in pairwise(starts):
        parts.append(model(input_ids=batch["input_ids"][:, start:end], use_cache=False).logits[0])
    model.set_attn_implementation("llmkit_rows")
    return torch.cat(parts)[batch["predict_at"]].float()


@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 3.0, "weight": 0.3}, {"temperature": 0.5, "weight": 1.0}],
    ids=["defaults", "warm", "teacher alone"],
)
def test_it_is_the_plain_formula_and_so_is_its_gradient(tiny_model, teacher, batch, settings):
    plain = copy.deepcopy(tiny_model)
    for model in (tiny_model, plain):
        model.requires_grad_(requires_grad=True)
    objective = _objective(teacher, **settings)
    temperature, weight = objective.config.temperature, objective.config.weight
    counts = objective.count(batch)
    found = objective.loss(tiny_model, batch, {"supervised": 2 * counts["supervised"]})
    (3 * found.value).backward()

    logits = _logits(plain, batch)
    with torch.no_grad():
        told = _logits(teacher, batch)
    divergence = kl_div(
        (logits / temperature).log_softmax(-1), (told / temperature).softmax(-1), reduction="none"
    ).sum(-1)
    entropy = cross_entropy(logits, batch["shift_labels"], reduction="none")
    expected = (weight * temperature**2 * divergence + (1 - weight) * entropy).mean() / 2
    (3 * expected).backward()

    assert counts == {"supervised": len(batch["shift_labels"])}
    assert float(found.value) == pytest.approx(float(expected), rel=1e-5)
    assert float(found.figures["divergence"]) == pytest.approx(
        float(divergence.mean()) / 2, rel=1e-4
    )
    assert float(found.figures["cross_entropy"]) == pytest.approx(
        float(entropy.mean()) / 2, rel=1e-5
    )
    own = dict(tiny_model.named_parameters())
    for name, parameter in plain.named_parameters():
        assert torch.allclose(own[name].grad, parameter.grad, rtol=1e-3, atol=1e-6), name
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_from_itself_a_model_diverges_by_nothing(tiny_model, batch):
    teacher = copy.deepcopy(tiny_model)
    tiny_model.requires_grad_(requires_grad=True)
    found = _objective(teacher, weight=1.0, temperature=2.0).loss(
        tiny_model, batch, {"supervised": 1}
    )
    found.value.backward()
    assert float(found.value) == pytest.approx(0, abs=1e-4)
    assert float(found.figures["cross_entropy"]) > 1
    gradients = [parameter.grad.abs().max() for parameter in tiny_model.parameters()]
    assert float(torch.stack(gradients).max()) < 1e-4


def test_only_what_trains_gets_a_gradient(tiny_model, teacher, batch):
    norm = tiny_model.model.norm.weight.requires_grad_()
    _objective(teacher).loss(tiny_model, batch, {"supervised": 1}).value.backward()
    assert norm.grad.abs().max() > 0
    assert tiny_model.lm_head.weight.grad is None


def test_rows_that_fill_a_teachers_matrix_up_are_not_compared(tiny_model, teacher, batch):
    objective = _objective(teacher)
    before = objective.loss(tiny_model, batch, {"supervised": 1})
    teacher.resize_token_embeddings(384, mean_resizing=False)
    after = objective.loss(tiny_model, batch, {"supervised": 1})
    assert float(after.value) == pytest.approx(float(before.value), rel=1e-6)


@pytest.mark.parametrize("adapter", [{"rank": 8}, {"kind": "full"}], ids=["lora", "full"])
def test_a_student_becomes_like_its_teacher(run, prepared, competent, tmp_path, adapter):
    figures = run(
        prepared(40, validation=4),
        tmp_path,
        method="distill",
        distillation={"teacher": "competent", "weight": 1.0},
        teacher=competent,
        adapter=adapter,
        epochs=8,
        learning_rate=5e-3,
    )
    events = read_events(tmp_path / "events.jsonl")
    seen = [event for event in events if event["event"] == "validation"]
    assert seen[-1]["divergence"] < 0.7 * seen[0]["divergence"]
    assert figures["validation_loss_end"] == pytest.approx(seen[-1]["divergence"], rel=1e-3)
    assert seen[-1]["cross_entropy"] < seen[0]["cross_entropy"]
    steps = [event for event in events if event["event"] == "step"]
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert {"divergence", "cross_entropy", "supervised"} <= steps[0].keys()


def test_no_more_logits_exist_than_of_a_chunk(tiny_model, teacher, batch, monkeypatch):
    seen = []
    own = distillation.Head.logits

    def watched(head, hidden):
        seen.append(len(hidden))
        return own(head, hidden)

    monkeypatch.setattr(distillation.Head, "logits", watched)
    _objective(teacher).loss(tiny_model, batch, {"supervised": 1})
    assert max(seen) == 7
    assert sum(seen) == 2 * len(batch["shift_labels"])


def test_a_teacher_of_another_vocabulary_is_refused(tiny, tmp_path):
    refuse_another_vocabulary("same", tiny, tiny)
    other = shutil.copytree(tiny, tmp_path / "other")
    written = json.loads((other / "tokenizer.json").read_text())
    vocabulary = written["model"]["vocab"]
    first, second = "a", "b"
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(written))
    with pytest.raises(UsageError, match=r"2 tokens differ, the first is 'a' \(id \d+ here, id"):
        refuse_another_vocabulary("other", other, tiny)


def test_the_teachers_logits_are_those_of_its_own_forward_pass(teacher, batch):
    with torch.no_grad():
        assert torch.allclose(supervised_logits(teacher, batch), _logits(teacher, batch), atol=1e-4)


def test_a_teacher_that_is_followed_already_is_no_divergence(run, prepared, tiny, tmp_path):
    """Against a loss of nearly nothing, the noise of dropout is many times as much."""
    figures = run(
        prepared(24),
        tmp_path,
        teacher=tiny,
        method="distill",
        distillation={"teacher": "tiny", "weight": 1.0},
        adapter={"rank": 4, "dropout": 0.3},
        learning_rate=3e-3,
        patience=2,
        max_steps=12,
    )
    assert figures["steps"] == 12
    assert figures["loss_last"] < 0.1
