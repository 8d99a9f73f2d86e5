"""Kahneman-Tversky optimisation: rows labelled good or bad, without a partner.

A good answer should become more likely than answers are in general, a bad one less. How much
likelier answers have become in general is the divergence from the reference. It is estimated on
mismatched rows, which have a prompt with the answer to another one, over the whole optimiser
step, and is a number without a gradient.

Source:
    Ethayarajh et al. 2024, arXiv 2402.01306.
"""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from llmkit.training import preference
from llmkit.training.batching import GOOD
from llmkit.training.loss import row_log_probabilities
from llmkit.training.objective import Counts, Loss
from llmkit.training.settings import PreferenceConfig


class KahnemanTversky:
    """The weighted mean over rows."""

    def __init__(self, config: PreferenceConfig) -> None:
        self._config = config

    def count(self, batch: Mapping[str, Any]) -> Counts:
        """Its rows of either label."""
        good = int((batch["row_kinds"] == GOOD).sum())
        return {"good": good, "bad": len(batch["row_targets"]) - good}

    def look_ahead(self, model: PreTrainedModel, batch: Mapping[str, Any]) -> dict[str, float]:
        """How much likelier the mismatched rows have become, nats, summed."""
        rows = batch["mismatched"]
        ratios = row_log_probabilities(model, rows) - rows["reference"]
        return {"mismatched_ratios": float(ratios.sum())}

    def loss(
        self, model: PreTrainedModel, batch: Mapping[str, Any], totals: Mapping[str, float]
    ) -> Loss:
        """The summed loss of a batch's rows over the step's rows."""
        config = self._config
        rows = totals["good"] + totals["bad"]
        kl = max(0.0, totals["mismatched_ratios"] / rows)
        ratios = row_log_probabilities(model, batch) - batch["reference"]
        good, bad = preference.sides(batch, ratios)
        losses = (
            config.desirable_weight * (1 - torch.sigmoid(config.beta * (good - kl))).sum()
            + config.undesirable_weight * (1 - torch.sigmoid(config.beta * (kl - bad))).sum()
        )
        return Loss(losses / rows, self._figures(good.detach(), bad.detach(), kl, totals))

    def _figures(
        self, good: torch.Tensor, bad: torch.Tensor, kl: float, totals: Mapping[str, float]
    ) -> dict[str, torch.Tensor]:
        """Parts of the step's means; a label that the step does not have has none."""
        rows = totals["good"] + totals["bad"]
        right = (good > kl).sum() + (bad < kl).sum()
        share = (len(good) + len(bad)) / rows  # the estimate is the step's: parts that add up to it
        figures = {"accuracy": right / rows, "kl": good.new_tensor(kl * share)}
        beta = self._config.beta
        if totals["good"]:
            figures["chosen_reward"] = beta * good.sum() / totals["good"]
        if totals["bad"]:
            figures["rejected_reward"] = beta * bad.sum() / totals["bad"]
        if totals["good"] and totals["bad"]:
            figures["margin"] = figures["chosen_reward"] - figures["rejected_reward"]
        return figures
