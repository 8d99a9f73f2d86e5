"""The objective of sft and pretrain: the next supervised token."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel

from llmkit.training.loss import supervised_loss
from llmkit.training.objective import Counts, Loss


class CrossEntropy:
    """The mean cross-entropy of the supervised tokens, nats."""

    def count(self, batch: Mapping[str, Any]) -> Counts:
        """Its supervised tokens."""
        return {"supervised": len(batch["shift_labels"])}

    def loss(
        self, model: PreTrainedModel, batch: Mapping[str, Any], totals: Mapping[str, float]
    ) -> Loss:
        """The summed cross-entropy over the step's supervised tokens."""
        return Loss(supervised_loss(model, batch) / totals["supervised"])
