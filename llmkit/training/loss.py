"""Cross-entropy and log-probabilities at supervised positions, a chunk of logits at a time."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.functional import cross_entropy, linear
from transformers import PreTrainedModel

from llmkit.models.packs import laid_out
from llmkit.training.kernels.head import HeadGradients, target_losses

CHUNK = 256
"""Positions whose logits exist at once: 256 x 49,152 float32 logits are 48 MiB."""


class _ChunkedLoss(torch.autograd.Function):
    """Sum of cross-entropies; gradients are taken chunk by chunk while the logits exist.

    Without this, autograd keeps the logits of every position, in float32, until the backward pass.
    """

    @staticmethod
    def forward(
        context: Any, head: "Head", hidden: torch.Tensor, targets: torch.Tensor, *weights: Any
    ) -> torch.Tensor:
        """Shapes: hidden ``[positions, width]``, targets ``[positions]``; returns a scalar."""
        context.asked = [weight.requires_grad for weight in weights]
        if head.is_plain:
            found = _of_plain_head(hidden, targets, weights, [hidden, *weights])
            context.save_for_backward(found.hidden, *filter(_is_there, (found.weight, found.bias)))
            return found.losses.sum()
        wanted = [weight for weight in weights if weight.requires_grad]
        sums = [torch.zeros_like(weight) for weight in wanted]
        hidden_gradient = torch.empty_like(hidden)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(targets), CHUNK):
            part = slice(start, start + CHUNK)
            with torch.enable_grad():
                piece = hidden[part].detach().requires_grad_()
                loss = cross_entropy(head.logits(piece), targets[part], reduction="sum")
            gradients = torch.autograd.grad(loss, [piece, *wanted])
            hidden_gradient[part] = gradients[0]
            for running, gradient in zip(sums, gradients[1:], strict=True):
                running += gradient
            total += loss.detach()
        context.save_for_backward(hidden_gradient, *sums)
        return total

    @staticmethod
    def backward(context: Any, *outputs: torch.Tensor) -> Any:
        """Scale the stored gradients."""
        hidden_gradient, *sums = context.saved_tensors
        upstream = outputs[0]
        scaled = iter([running * upstream for running in sums])
        weights = [next(scaled) if asked else None for asked in context.asked]
        of_hidden = None
        if (
            hidden_gradient is not None
        ):  # scaled in float32: a loss scale is more than float16 holds
            of_hidden = (hidden_gradient * upstream[None, None]).to(hidden_gradient.dtype)
        return None, of_hidden, None, *weights


class _ChunkedLogProbabilities(torch.autograd.Function):
    """The log-probability of every target, each with a gradient of its own.

    A target's log-probability depends on its own hidden state alone. So its gradient there can be
    taken while its logits exist, and be scaled by whatever comes back later. A trained head's
    gradient is a sum over targets which are scaled differently: its logits are computed again.
    """

    @staticmethod
    def forward(
        context: Any, head: "Head", hidden: torch.Tensor, targets: torch.Tensor, *weights: Any
    ) -> torch.Tensor:
        """Shapes: hidden ``[positions, width]``, targets ``[positions]``; returns as targets."""
        learns = context.needs_input_grad[1]
        if head.is_plain:
            losses = _of_plain_head(hidden, targets, weights, [hidden])
            found = -losses.losses
            gradient = None if losses.hidden is None else -losses.hidden
        else:
            gradient = torch.empty_like(hidden) if learns else None
            found = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
            for start in range(0, len(targets), CHUNK):
                part = slice(start, start + CHUNK)
                with torch.set_grad_enabled(learns):
                    piece = hidden[part].detach().requires_grad_(learns)
                    each = _log_probabilities(head, piece, targets[part])
                    if gradient is not None:
                        gradient[part] = torch.autograd.grad(each.sum(), piece)[0]
                found[part] = each.detach()
        context.head, context.weights = head, weights
        context.autocast = _autocast(hidden.device.type)
        again = any(weight.requires_grad for weight in weights)
        context.save_for_backward(gradient, hidden if again else None, targets)
        return found

    @staticmethod
    def backward(context: Any, *outputs: torch.Tensor) -> Any:
        """Scale the stored gradients, and take those of a head that trains."""
        gradient, hidden, targets = context.saved_tensors
        upstream = outputs[0]
        wanted = [weight for weight in context.weights if weight.requires_grad]
        sums = [torch.zeros_like(weight) for weight in wanted]
        for start in range(0, len(targets) if wanted else 0, CHUNK):
            part = slice(start, start + CHUNK)
            with torch.enable_grad(), torch.autocast(**context.autocast):
                each = _log_probabilities(context.head, hidden[part].detach(), targets[part])
                scaled = (each * upstream[part]).sum()
            for running, found in zip(sums, torch.autograd.grad(scaled, wanted), strict=True):
                running += found
        given = iter(sums)
        weights = [next(given) if weight.requires_grad else None for weight in context.weights]
        of_hidden = gradient
        if gradient is not None:  # scaled in float32: a loss scale is more than float16 holds
            of_hidden = (gradient * upstream[:, None]).to(gradient.dtype)
        return None, of_hidden, None, *weights


def _of_plain_head(
    hidden: torch.Tensor,
    targets: torch.Tensor,
    weights: Sequence[torch.Tensor],
    learn: Sequence[torch.Tensor],
) -> HeadGradients:
    """Losses of targets, with gradients for those of ``learn`` that require them."""
    weight, bias = weights[0], weights[1] if len(weights) > 1 else None
    learns = [
        any(each is one for one in learn) and each.requires_grad for each in (hidden, *weights)
    ]
    device = hidden.device.type
    in_autocast = torch.is_autocast_enabled(device)
    return target_losses(
        hidden,
        weight,
        bias,
        targets,
        dtype=torch.get_autocast_dtype(device) if in_autocast else hidden.dtype,
        chunk=CHUNK,
        learns=(learns[0], learns[1], len(learns) > 2 and learns[2]),
    )


def _is_there(tensor: torch.Tensor | None) -> bool:
    return tensor is not None


def _log_probabilities(head: "Head", hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return -cross_entropy(head.logits(hidden), targets, reduction="none")


def _autocast(device: str) -> dict[str, Any]:
    """In what the products of this moment are computed: a backward pass does not know."""
    return {
        "device_type": device,
        "dtype": torch.get_autocast_dtype(device),
        "enabled": torch.is_autocast_enabled(device),
    }


class Head:
    """The output layer with what some model families do to its logits."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.layer = model.get_output_embeddings()
        if isinstance(self.layer, FSDPModule):
            self.layer.unshard()  # its own hook would, and is passed by; see `_project`
        config = model.config.get_text_config()
        self.cap = getattr(config, "final_logit_softcapping", None)
        self.divide_by = getattr(config, "logits_scaling", None)  # Granite
        self.multiply_by = getattr(config, "logit_scale", None)  # Cohere
        layer = self.layer
        self._is_linear = type(layer).forward is nn.Linear.forward and "forward" not in vars(layer)
        self.is_plain = self._is_linear and not (self.cap or self.divide_by or self.multiply_by)
        """Whether logits are one product and nothing else."""

    def weights(self) -> list[torch.Tensor]:
        """The layer's; where no gradients are taken, none of theirs either."""
        own = self.layer.parameters()
        return list(own) if torch.is_grad_enabled() else [weight.detach() for weight in own]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Float32 logits, shape ``[positions, vocabulary]``."""
        logits = self._project(hidden).float()
        if self.divide_by:
            logits = logits / self.divide_by
        if self.multiply_by:
            logits = logits * self.multiply_by
        if self.cap:
            logits = self.cap * torch.tanh(logits / self.cap)
        return logits

    def _project(self, hidden: torch.Tensor) -> torch.Tensor:
        """The layer's product, past its hooks where it is an ordinary one.

        FSDP hangs the exchange of gradients on hooks, and a chunk's gradient, taken inside the
        forward pass, would set it off before there is anything to exchange. The weights are whole
        here: `Head` has gathered them.
        """
        if self._is_linear:
            return linear(hidden, self.layer.weight, self.layer.bias)
        return self.layer(hidden)  # type: ignore[no-any-return]


def hidden_states(model: PreTrainedModel, batch: Mapping[str, Any]) -> torch.Tensor:
    """The decoder's last hidden states at the positions that predict, ``[supervised, width]``."""
    decoder = model.get_decoder()
    output = decoder(**laid_out(batch), use_cache=False)
    return output.last_hidden_state[0, batch["predict_at"]]  # type: ignore[no-any-return]


def supervised_loss(model: PreTrainedModel, batch: Mapping[str, Any]) -> torch.Tensor:
    """The summed cross-entropy of a batch's supervised tokens.

    Args:
        model: a causal language model, adapters included, not its PEFT wrapper.
        batch: as `llmkit.training.batching.collate` makes it.

    Returns:
        A scalar in float32: nats, summed, not averaged; divide by the number of targets.
    """
    hidden = hidden_states(model, batch)
    head = Head(model)
    weights = head.weights()
    return _ChunkedLoss.apply(head, hidden, batch["shift_labels"], *weights)  # type: ignore[no-any-return, no-untyped-call]


def row_log_probabilities(model: PreTrainedModel, batch: Mapping[str, Any]) -> torch.Tensor:
    """How likely each row's supervised tokens are together, given what is before them.

    Args:
        model: as for `supervised_loss`.
        batch: as `llmkit.training.batching.collate` makes it.

    Returns:
        Shape ``[rows]``, float32, nats.
    """
    hidden = hidden_states(model, batch)
    head = Head(model)
    weights = head.weights()
    each = _ChunkedLogProbabilities.apply(head, hidden, batch["shift_labels"], *weights)  # type: ignore[no-untyped-call]
    # Summed row by row: an index_add on a GPU would add in another order every time.
    return torch.stack([row.sum() for row in each.split(batch["row_targets"])])


@torch.no_grad()
def supervised_logits(model: PreTrainedModel, batch: Mapping[str, Any]) -> torch.Tensor:
    """Float32 logits at the positions that predict, ``[supervised, vocabulary]``."""
    return Head(model).logits(hidden_states(model, batch))
