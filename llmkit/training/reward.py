"""Reward modelling: the chosen row's score above the rejected one's (Bradley-Terry).

Source:
    Ouyang et al. 2022, arXiv 2203.02155, equation 1.
"""

from collections.abc import Mapping
from typing import Any

from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel

from llmkit.models.scoring import row_scores
from llmkit.training import preference
from llmkit.training.objective import Counts, Loss


class Reward:
    """The mean over pairs."""

    def count(self, batch: Mapping[str, Any]) -> Counts:
        """Its pairs."""
        return {"pairs": preference.pairs(batch)}

    def loss(
        self, model: PreTrainedModel, batch: Mapping[str, Any], totals: Mapping[str, float]
    ) -> Loss:
        """The summed loss of a batch's pairs over the step's pairs."""
        chosen, rejected = preference.sides(batch, row_scores(model, batch))
        figures = preference.pair_figures(chosen, rejected, totals["pairs"])
        return Loss(-logsigmoid(chosen - rejected).sum() / totals["pairs"], figures)
