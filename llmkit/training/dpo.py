"""Direct preference optimisation: the chosen answer more likely, the rejected one less.

Both are measured against what the model was before training, so that it stays near.

Source:
    Rafailov et al. 2023, arXiv 2305.18290 (sigmoid); Zhao et al. 2023, SLiC-HF, arXiv 2305.10425
    (hinge); Azar et al. 2023, IPO, arXiv 2310.12036; label smoothing as Mitchell 2023, "A note on
    DPO with noisy preferences" (cDPO).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel

from llmkit.training import preference
from llmkit.training.loss import row_log_probabilities
from llmkit.training.objective import Counts, Loss
from llmkit.training.settings import PreferenceConfig


class DirectPreference:
    """The mean over pairs."""

    def __init__(self, config: PreferenceConfig) -> None:
        self._config = config

    def count(self, batch: Mapping[str, Any]) -> Counts:
        """Its pairs."""
        return {"pairs": preference.pairs(batch)}

    def loss(
        self, model: PreTrainedModel, batch: Mapping[str, Any], totals: Mapping[str, float]
    ) -> Loss:
        """The summed loss of a batch's pairs over the step's pairs."""
        ratios = row_log_probabilities(model, batch) - batch["reference"]
        each = self._losses(batch, ratios)
        chosen, rejected = preference.sides(batch, self._config.beta * ratios)
        figures = preference.pair_figures(chosen, rejected, totals["pairs"])
        return Loss(each.sum() / totals["pairs"], figures)

    def _losses(self, batch: Mapping[str, Any], ratios: torch.Tensor) -> torch.Tensor:
        """One a pair, of the log-ratios of model to reference ``[rows]``."""
        beta, smoothing = self._config.beta, self._config.label_smoothing
        if self._config.loss == "ipo":  # of means over tokens, or long answers would decide all
            chosen, rejected = preference.sides(batch, ratios / preference.targets(batch))
            return (chosen - rejected - 1 / (2 * beta)) ** 2
        chosen, rejected = preference.sides(batch, ratios)
        margin = beta * (chosen - rejected)
        if self._config.loss == "hinge":
            return torch.relu(1 - margin)
        return -(1 - smoothing) * logsigmoid(margin) - smoothing * logsigmoid(-margin)
