"""Every preference loss and its gradient are TRL's own, in float32, packed as it comes.

TRL's code is called as it is: a trainer object without a training around it, on the same model and
the same pairs, padded as TRL pads them.
"""

from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from preference_units import labelled, packed, pairs
from trl import DPOTrainer, KTOTrainer, RewardTrainer
from trl.experimental.orpo import ORPOTrainer
from trl.trainer.utils import add_fused_lm_head

from llmkit.models.adapters import attach, base_of
from llmkit.models.attention import ROWS_ATTENTION
from llmkit.models.loading import load_scorer
from llmkit.training.batching import MISMATCHED, Sequence, collate
from llmkit.training.loss import row_log_probabilities
from llmkit.training.objective import accept_objectives, add_counts, looked_ahead
from llmkit.training.objectives import objective_for
from llmkit.training.settings import LoraAdapter, TrainingConfig

CPU = torch.device("cpu")
# Measured: float32 sums in another order differ by about 1e-6 relative.
CLOSE = {"rel": 1e-4}
Gradients = list[torch.Tensor]


@pytest.fixture
def policy(tiny_model) -> Any:
    """A model with adapters that have learned something, as both sides compute with it."""
    add_fused_lm_head(tiny_model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    return _trained(tiny_model)


def _trained(base: Any) -> Any:
    model = attach(base, LoraAdapter(rank=4), seed=0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@torch.no_grad()
def _referenced(model: Any, units: list[Sequence]) -> list[Sequence]:
    """Units with the log-probabilities of the model without its adapters."""
    with model.disable_adapter():
        return [
            replace(unit, reference=row_log_probabilities(base_of(model), batch).numpy())
            for unit in units
            for batch in [collate([unit.without_kinds()])]
        ]


def _gradients(model: Any, loss: torch.Tensor) -> tuple[float, Gradients]:
    model.zero_grad()
    loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    return float(loss.detach()), [p.grad.clone() for p in trained if p.grad is not None]


def _ours(
    model: Any, method: str, sequences: list[Sequence], **preference: Any
) -> tuple[float, Gradients, dict[str, float]]:
    """Loss, gradients and figures of one optimiser step over several passes."""
    config = TrainingConfig.model_validate({"method": method, "preference": preference})
    objective = objective_for(config)
    batches = [collate([sequence]) | {"counted": True} for sequence in sequences]
    totals: dict[str, float] = {**add_counts([objective.count(batch) for batch in batches])}
    accept_objectives(base_of(model))
    totals |= looked_ahead(model, objective, batches, CPU)
    parts = [objective.loss(base_of(model), batch, totals) for batch in batches]
    figures = {name: sum(float(p.figures[name]) for p in parts) for name in parts[0].figures}
    return *_gradients(model, sum(part.value for part in parts)), figures


def _padded(rows: list[Sequence], prefix: str = "") -> dict[str, torch.Tensor]:
    """Rows as TRL pads them, to the right."""
    width = max(len(row.input_ids) for row in rows)
    ids, attention, completion = (torch.zeros(len(rows), width, dtype=torch.long) for _ in "iac")
    for index, row in enumerate(rows):
        length = len(row.input_ids)
        ids[index, :length] = torch.tensor(row.input_ids.astype("int64"))
        attention[index, :length] = 1
        completion[index, :length] = torch.tensor(row.supervised.astype("int64"))
    return {
        f"{prefix}input_ids": ids,
        f"{prefix}attention_mask": attention,
        f"{prefix}completion_mask": completion,
    }


def _rows(units: list[Sequence], index: int) -> list[Sequence]:
    return [unit.row(index) for unit in units]


def _trl(kind: type, model: Any, **attributes: Any) -> Any:
    """A TRL trainer that can compute its loss, and nothing else."""
    made = object.__new__(kind)
    values = {
        "model": model,
        "accelerator": Accelerator(cpu=True),
        "ref_model": None,
        "aux_loss_enabled": False,
        "precompute_ref_logps": False,
        "args": SimpleNamespace(
            gradient_checkpointing_kwargs=None, center_rewards_coefficient=None
        ),
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "_total_train_tokens": 0,
        "_tp_size": 1,
        **attributes,
    }
    for name, value in values.items():
        setattr(made, name, value)
    return made


def _theirs(model: Any, compute: Any) -> tuple[float, Gradients]:
    """TRL's loss and gradients, through the model's own forward with padding."""
    base_of(model).set_attn_implementation("eager")
    found = _gradients(model, compute())
    base_of(model).set_attn_implementation(ROWS_ATTENTION)
    return found


def _assert_same(ours: tuple[Any, ...], theirs: tuple[float, Gradients]) -> None:
    assert ours[0] == pytest.approx(theirs[0], **CLOSE)
    for mine, expected in zip(ours[1], theirs[1], strict=True):
        assert (mine - expected).norm() <= 1e-4 * expected.norm() + 1e-7
    assert sum(expected.norm() for expected in theirs[1]) > 0


def _dpo(model: Any, units: list[Sequence], **settings: Any) -> tuple[float, Gradients, Any]:
    values = {"beta": 0.1, "loss_types": ["sigmoid"], "label_smoothing": 0.0, **settings}
    trainer = _trl(
        DPOTrainer,
        model,
        loss_weights=[1.0],
        f_divergence_type="reverse_kl",
        ld_alpha=None,
        use_weighting=False,
        **values,
    )
    batch = _padded(_rows(units, 0) + _rows(units, 1))
    found = _theirs(model, lambda: trainer._compute_loss(model, batch, return_outputs=False))
    return *found, trainer._metrics["eval"]


@pytest.mark.parametrize("loss", ["sigmoid", "hinge", "ipo"])
def test_dpo_is_trls(policy, loss):
    policy.eval()
    units = _referenced(policy, pairs(7))
    ours = _ours(policy, "dpo", packed(units, 3), beta=0.3, loss=loss)
    theirs = _dpo(policy, units, beta=0.3, loss_types=[loss])
    _assert_same(ours, theirs[:2])
    metrics = {name: values[-1] for name, values in theirs[2].items()}
    assert ours[2] == pytest.approx(
        {
            "margin": metrics["rewards/margins"],
            "accuracy": metrics["rewards/accuracies"],
            "chosen_reward": metrics["rewards/chosen"],
            "rejected_reward": metrics["rewards/rejected"],
        },
        **CLOSE,
    )
    assert 0 < ours[2]["accuracy"] < 1  # the pairs are not all alike


def test_dpo_with_smoothed_labels_is_trls(policy):
    policy.eval()
    for unit in _referenced(policy, pairs(3)):
        ours = _ours(policy, "dpo", [unit], label_smoothing=0.2)
        # TRL smooths in "aot" alone, which is "sigmoid" where a batch is one pair.
        _assert_same(ours, _dpo(policy, [unit], loss_types=["aot"], label_smoothing=0.2)[:2])
        assert ours[0] != pytest.approx(_ours(policy, "dpo", [unit])[0], rel=1e-3)


def _estimate(model: Any, units: list[Sequence]) -> float:
    """How much likelier the mismatched rows have become, as a mean: KTO's before it is bounded."""
    found = []
    for unit in units:
        mismatched = collate([unit])["mismatched"]
        with torch.no_grad():
            found += (
                row_log_probabilities(base_of(model), mismatched) - unit.reference[1]
            ).tolist()
    return sum(found) / len(found)


@pytest.mark.parametrize(
    ("labels", "shift"),
    [([True, False, False, True, False, True, False], 0.0), ([True] * 4, -50), ([False] * 4, 50)],
    ids=["both", "good and likelier", "bad and less likely"],
)
def test_kto_is_trls(policy, labels, shift):
    """The divergence from the reference is estimated, and never below zero, where none can be.

    Which side of zero an estimate is on depends on the rows and the weights, so two of the three
    have references that are far on one side; the reference of the third is what TRL computes.
    """
    policy.eval()
    units = _referenced(policy, labelled(labels))
    units = [replace(unit, reference=unit.reference + np.float32(shift)) for unit in units]
    weights = {"desirable_weight": 1.3, "undesirable_weight": 0.7}
    ours = _ours(policy, "kto", packed(units, 3), **weights)
    batch = _padded(_rows(units, 0)) | _padded(_rows(units, 1), "KL_")
    batch["label"] = torch.tensor(labels)
    precomputed = {
        "ref_logps": torch.tensor([unit.reference[0] for unit in units]),
        "ref_KL_logps": torch.tensor([unit.reference[1] for unit in units]),
    }
    trainer = _trl(
        KTOTrainer,
        policy,
        beta=0.1,
        loss_type="kto",
        calculate_KL=True,
        **weights,
    )
    trainer.precompute_ref_logps = bool(shift)
    batch |= precomputed if shift else {}
    _assert_same(
        ours, _theirs(policy, lambda: trainer._compute_loss(policy, batch, return_outputs=False))
    )
    metrics = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
    assert ours[2]["kl"] == pytest.approx(metrics["kl"], **CLOSE)
    estimate = _estimate(policy, units)
    assert ours[2]["kl"] == pytest.approx(max(0.0, estimate), **CLOSE)
    if shift:
        assert (estimate > 0) == (shift < 0)
    for name, theirs in [
        ("chosen_reward", "rewards/chosen"),
        ("rejected_reward", "rewards/rejected"),
        ("margin", "rewards/margins"),
    ]:
        assert (name in ours[2]) == (theirs in metrics)
        if name in ours[2]:
            assert ours[2][name] == pytest.approx(metrics[theirs], **CLOSE)


def _orpo(model: Any, units: list[Sequence]) -> Any:
    trainer = _trl(ORPOTrainer, model, beta=0.4, is_encoder_decoder=False, padding_value=0)
    batch = {}
    for side, index in (("chosen", 0), ("rejected", 1)):
        found = _padded(_rows(units, index), f"{side}_")
        mask = found.pop(f"{side}_completion_mask")
        labels = found[f"{side}_input_ids"].masked_fill(mask == 0, -100)
        batch |= found | {f"{side}_labels": labels}
    return trainer, batch


def test_orpo_is_trls(policy):
    policy.eval()
    # TRL learns the chosen row's prompt too: of one token, there is nothing in it to predict.
    units = pairs(7, prompt_tokens=1)
    ours = _ours(policy, "orpo", packed(units, 3), beta=0.4)
    trainer, batch = _orpo(policy, units)
    _assert_same(ours, _theirs(policy, lambda: trainer.get_batch_loss_metrics(policy, batch)[0]))


def test_orpo_prefers_as_trl_and_learns_no_prompt(policy):
    policy.eval()
    units = pairs(5)
    loss, _, figures = _ours(policy, "orpo", packed(units, 2), beta=0.4)
    trainer, batch = _orpo(policy, units)
    base_of(policy).set_attn_implementation("eager")
    with torch.no_grad():
        metrics = trainer.get_batch_loss_metrics(policy, batch)[1]
        logits = policy(
            input_ids=batch["chosen_input_ids"], attention_mask=batch["chosen_attention_mask"]
        ).logits
        answers = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), batch["chosen_labels"][:, 1:].flatten()
        )
    assert figures["chosen_cross_entropy"] == pytest.approx(float(answers), **CLOSE)
    assert loss == pytest.approx(float(answers) - 0.4 * metrics["log_odds_ratio"], **CLOSE)
    assert figures["log_odds_ratio"] == pytest.approx(metrics["log_odds_chosen"], **CLOSE)
    assert figures["margin"] == pytest.approx(metrics["rewards/margins"], **CLOSE)


def test_the_odds_of_a_certain_answer_have_a_gradient():
    from llmkit.training.orpo import _log_odds

    sure = torch.tensor([0.0, -1e-9, -1e-3, -0.69, -0.7, -80.0], requires_grad=True)
    found = _log_odds(sure)
    found.sum().backward()
    assert found.isfinite().all()
    assert sure.grad.isfinite().all()
    probabilities = sure.detach()[2:].double().exp()
    expected = probabilities.logit()
    torch.testing.assert_close(found.detach()[2:].double(), expected, rtol=1e-4, atol=1e-4)


def test_reward_is_trls(tiny):
    base = load_scorer(tiny, quantization="none", device=CPU, dtype=torch.float32)
    model = _trained(base)
    model.eval()
    base.config.pad_token_id = 0
    units = pairs(7)
    ours = _ours(model, "reward", packed(units, 3))
    trainer = _trl(RewardTrainer, model)
    batch = _padded(_rows(units, 0) + _rows(units, 1))
    del batch["completion_mask"]
    _assert_same(ours, _theirs(model, lambda: trainer.compute_loss(model, batch)))
    metrics = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
    assert ours[2]["margin"] == pytest.approx(metrics["margin"], **CLOSE)
    assert ours[2]["accuracy"] == pytest.approx(metrics["accuracy"], **CLOSE)


@pytest.mark.parametrize("method", ["dpo", "kto", "orpo"])
def test_units_of_one_pass_are_as_units_alone(policy, method):
    policy.eval()
    made = labelled([True, False, True, True, False]) if method == "kto" else pairs(5)
    units = _referenced(policy, made)
    together = _ours(policy, method, packed(units, len(units)))
    alone = _ours(policy, method, units)
    _assert_same(together, alone[:2])
    assert together[2] == pytest.approx(alone[2], **CLOSE)


def test_mismatched_rows_are_never_in_the_pass_with_gradients():
    units = labelled([True, False, True])
    batch = collate(packed(units, 2))
    for part, index in ((batch, 0), (batch["mismatched"], 1)):
        expected = Sequence.joined(*_rows(units, index))
        assert part["input_ids"][0].tolist() == expected.input_ids.tolist()
        assert len(part["row_targets"]) == 3
        assert sum(part["row_targets"]) == len(part["shift_labels"]) == expected.supervised.sum()
    assert MISMATCHED not in batch["row_kinds"].tolist()
    assert batch["mismatched"]["row_kinds"].tolist() == [MISMATCHED] * 3
