r"""The objective of distill: a teacher's whole prediction, beside the token that the row has.

Where a token is supervised, with :math:`z` the logits and :math:`T` the temperature:

    weight * T^2 * KL(softmax(z_teacher / T) || softmax(z_student / T))
        + (1 - weight) * cross-entropy of the row's token

:math:`T^2` keeps the gradient's size when the temperature changes (Hinton et al. 2015, arXiv
1503.02531). Of both models logits exist for a chunk of positions at a time: 512 positions of a
vocabulary of 151,936 are 297 MiB in float32, and a whole pack of 4,096 would be 2.3 GiB, twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy, kl_div
from transformers import PreTrainedModel

from llmkit.models.loading import load_base
from llmkit.training.batching import Sequences
from llmkit.training.isolation import check_loss_is_the_models_own, check_rows_are_apart
from llmkit.training.loss import CHUNK, Head, hidden_states
from llmkit.training.objective import Counts, Loss
from llmkit.training.settings import DistillationConfig


@dataclass(frozen=True, eq=False)
class Distillation:
    """The mean of divergence and cross-entropy over the supervised tokens, nats."""

    config: DistillationConfig
    teacher: PreTrainedModel
    """Frozen, in evaluation mode, on the device of the model that trains."""

    def count(self, batch: Mapping[str, Any]) -> Counts:
        """Its supervised tokens."""
        return {"supervised": len(batch["shift_labels"])}

    def loss(
        self, model: PreTrainedModel, batch: Mapping[str, Any], totals: Mapping[str, float]
    ) -> Loss:
        """The weighed sums over the step's supervised tokens; both sums apart as figures."""
        with torch.no_grad():
            told = hidden_states(self.teacher, batch)
        hidden, head = hidden_states(model, batch), Head(model)
        term = _Term(self.config, head, Head(self.teacher), told, batch["shift_labels"])
        weights = head.weights()
        total, divergence, entropy = _InChunks.apply(term, hidden, *weights)  # type: ignore[no-untyped-call]
        count = totals["supervised"]
        figures = {"divergence": divergence / count, "cross_entropy": entropy / count}
        return Loss(total / count, figures)


def load_teacher(
    folder: Path, sequences: Sequences, device: torch.device, dtype: torch.dtype
) -> PreTrainedModel:
    """Load a frozen teacher, and check on real rows that its predictions are its own.

    Raises:
        CheckFailed: rows of a pack see each other on it, or it computes something that our logits
            leave out.
        UsageError: it cannot be loaded, or does not fit in memory.
    """
    teacher = load_base(folder, quantization="none", device=device, dtype=dtype)
    check_loss_is_the_models_own(teacher, sequences, dtype)
    check_rows_are_apart(teacher, sequences, dtype)
    return teacher


@dataclass(frozen=True, eq=False)
class _Term:
    """What is summed, for a chunk of positions."""

    config: DistillationConfig
    head: Head
    teacher_head: Head
    told: torch.Tensor
    """The teacher's hidden states, ``[positions, its width]``."""
    targets: torch.Tensor

    def of(self, hidden: torch.Tensor, part: slice) -> tuple[torch.Tensor, ...]:
        """The loss, and of it the divergence and the cross-entropy as they are, summed."""
        logits = self.head.logits(hidden)
        with torch.no_grad():
            told = self.teacher_head.logits(self.told[part])
        # Models of one vocabulary may have more rows than tokens, and not equally many.
        common = min(logits.shape[-1], told.shape[-1])
        temperature, weight = self.config.temperature, self.config.weight
        divergence = kl_div(
            (logits[:, :common] / temperature).log_softmax(-1),
            (told[:, :common] / temperature).log_softmax(-1),
            reduction="sum",
            log_target=True,
        )
        entropy = cross_entropy(logits, self.targets[part], reduction="sum")
        total = weight * temperature**2 * divergence + (1 - weight) * entropy
        return total, divergence.detach(), entropy.detach()


class _InChunks(torch.autograd.Function):
    """Sums of a term over all positions; gradients are taken while a chunk's logits exist."""

    @staticmethod
    def forward(
        context: Any, term: _Term, hidden: torch.Tensor, *weights: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Shapes: hidden ``[positions, width]``; returns three scalars, see `_Term.of`."""
        wanted = [weight for weight in weights if weight.requires_grad]
        sums = [torch.zeros_like(weight) for weight in wanted]
        hidden_gradient = torch.empty_like(hidden)
        totals = torch.zeros(3, dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), CHUNK):
            part = slice(start, start + CHUNK)
            with torch.enable_grad():
                piece = hidden[part].detach().requires_grad_()
                found = term.of(piece, part)
            gradients = torch.autograd.grad(found[0], [piece, *wanted])
            hidden_gradient[part] = gradients[0]
            for running, gradient in zip(sums, gradients[1:], strict=True):
                running += gradient
            totals += torch.stack([each.detach() for each in found])
        context.save_for_backward(hidden_gradient, *sums)
        context.asked = [weight.requires_grad for weight in weights]
        figures = totals[1].clone(), totals[2].clone()
        context.mark_non_differentiable(*figures)
        return totals[0].clone(), *figures

    @staticmethod
    def backward(context: Any, *outputs: torch.Tensor) -> Any:
        """Scale the stored gradients."""
        hidden_gradient, *sums = context.saved_tensors
        upstream = outputs[0]
        scaled = iter([running * upstream for running in sums])
        weights = [next(scaled) if asked else None for asked in context.asked]
        # Scaled in float32: a loss scale is more than float16 holds.
        of_hidden = (hidden_gradient * upstream[None, None]).to(hidden_gradient.dtype)
        return None, of_hidden, *weights
