"""Odds ratio preference optimisation: learn the chosen answer, and prefer it to the rejected one.

There is no reference: what holds the model is that it learns the chosen answers as in sft. Only
their tokens are learned; the prompts' are not, as nowhere else.

Source:
    Hong et al. 2024, arXiv 2403.07691.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel

from llmkit.training import preference
from llmkit.training.batching import GOOD
from llmkit.training.loss import row_log_probabilities
from llmkit.training.objective import Counts, Loss
from llmkit.training.settings import PreferenceConfig

CERTAIN = -1e-6
"""Nats a token above which an answer's odds are no longer told apart: those of 1 are infinite."""


class OddsRatio:
    """Cross-entropy, a mean over the chosen tokens, and the odds ratio's loss, one over pairs."""

    def __init__(self, config: PreferenceConfig) -> None:
        self._beta = config.beta

    def count(self, batch: Mapping[str, Any]) -> Counts:
        """Its pairs, and the tokens of their chosen sides."""
        kinds = batch["row_kinds"].tolist()
        chosen = sum(n for n, kind in zip(batch["row_targets"], kinds, strict=True) if kind == GOOD)
        return {"pairs": preference.pairs(batch), "chosen_tokens": chosen}

    def loss(
        self, model: PreTrainedModel, batch: Mapping[str, Any], totals: Mapping[str, float]
    ) -> Loss:
        """A batch's part of both means."""
        each = row_log_probabilities(model, batch)
        learned = -preference.sides(batch, each)[0].sum() / totals["chosen_tokens"]
        chosen, rejected = preference.sides(batch, each / preference.targets(batch))
        ratios = _log_odds(chosen) - _log_odds(rejected)
        preferred = -logsigmoid(ratios).sum() / totals["pairs"]
        beta = self._beta
        figures = preference.pair_figures(beta * chosen, beta * rejected, totals["pairs"])
        figures |= {
            "chosen_cross_entropy": learned.detach(),
            "log_odds_ratio": ratios.detach().sum() / totals["pairs"],
        }
        return Loss(learned + beta * preferred, figures)


def _log_odds(log_probability: torch.Tensor) -> torch.Tensor:
    """log(p / (1 - p)) of log(p)."""
    found = log_probability.clamp(max=CERTAIN)
    likely = found > -0.6931471805599453  # from log(1/2) on the other form would round 1 - p away
    rest = torch.where(likely, torch.log(-torch.expm1(found)), torch.log1p(-torch.exp(found)))
    return found - rest
