"""Which faster forms a model is trained with: those that are equal, and no slower, here.

A form is tried on one layer of every shape, on random input of the size that training has, beside
the plain form. It is used when outputs and gradients are near the plain form's, and it takes no
longer, or hardly: all forms need less memory. What was chosen is written down, so that a resumed
training computes as it began.
"""

import json
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llmkit.errors import UsageError
from llmkit.files import write_json
from llmkit.models.loading import computing_in
from llmkit.training import processes
from llmkit.training.kernels.candidates import Candidate
from llmkit.training.kernels.gated import gates
from llmkit.training.kernels.lora import lora_layers
from llmkit.training.kernels.norm import norms
from llmkit.training.settings import Kernels

FILE = "kernels.json"
"""What was chosen, beside the checkpoints."""
SLOWER = 1.25
"""How much longer a form may take for the memory it saves, and for what a busy machine adds."""
TURNS = 3
"""Measurements of each form, taking turns; the shortest counts."""
FAR = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.05}
"""How far apart, as a share of the plain form's norm, outputs and gradients may be."""


Key = tuple[str, str, tuple[int, ...]]
"""Kind, layer and shape."""


@dataclass(frozen=True)
class Choice:
    """What was found of one kind and shape of layer."""

    kind: str
    layer: str
    shape: list[int]
    layers: int
    """How many have this shape."""
    used: bool
    distance: float | None = None
    """The most that an output or a gradient is away, as a share of the plain form's."""
    plain_ms: float | None = None
    """Forward and backward; None where nothing was measured."""
    fused_ms: float | None = None

    @property
    def key(self) -> Key:
        """As `Candidate.key`."""
        return self.kind, self.layer, tuple(self.shape)


def use_kernels(
    model: nn.Module,
    how: Kernels,
    *,
    dtype: torch.dtype,
    tokens: int,
    folder: Path,
    resumed: bool,
) -> list[Choice]:
    """Let a model compute in faster forms.

    Args:
        model: with what trains chosen.
        how: ``auto`` measures; ``plain`` uses none; ``fused`` all that are equal. Where weights are
            shared out over GPUs none are used: they take weights past what gathers them.
        dtype: of products.
        tokens: in a forward pass.
        folder: where the choice is written down.
        resumed: take the choice that is written down there.
    """
    if how == "plain" or processes.weights_are_shared_out():
        return []
    if resumed and (found := read_choices(folder)):
        apply_kernels(model, dtype, used(found))
        return found
    chosen = list(_choose(model, how, dtype, tokens))
    if processes.is_first():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FILE, [asdict(each) for each in chosen])
    return chosen


def read_choices(folder: Path) -> list[Choice]:
    """What was chosen and written down beside checkpoints; empty where nothing was.

    Raises:
        UsageError: the file is not what was written.
    """
    path = folder / FILE
    if not path.is_file():
        return []
    try:
        return [Choice(**each) for each in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{path}: cannot be read ({error}). It says which forms of layers the training began "
            "with. Remove it to have them chosen again: the rest of the training may then differ "
            "from an uninterrupted one by rounding."
        ) from None


def used(choices: Iterable[Choice]) -> frozenset[Key]:
    """The keys of the forms that are used."""
    return frozenset(each.key for each in choices if each.used)


def apply_kernels(
    model: nn.Module, dtype: torch.dtype, wanted: Collection[Key] | None = None
) -> None:
    """Use the forms of the given keys, or all, without a look at what they give."""
    for kind in KINDS:
        for candidate in kind(model, dtype):
            if wanted is None or candidate.key in wanted:
                candidate.use()


KINDS: tuple[Callable[[nn.Module, torch.dtype], Iterator[Candidate]], ...] = (
    lora_layers,
    lambda model, _dtype: norms(model),
    lambda model, _dtype: gates(model),
)
"""Where forms come from; those of layers inside other layers first."""


def _choose(model: nn.Module, how: Kernels, dtype: torch.dtype, tokens: int) -> Iterator[Choice]:
    for kind in KINDS:
        alike: dict[Any, list[Candidate]] = {}
        for candidate in kind(model, dtype):
            alike.setdefault(candidate.key, []).append(candidate)
        for (name, layer, shape), candidates in alike.items():
            found = processes.from_first(_measure(candidates[0], dtype, tokens))
            near = found[0] <= FAR[dtype]
            chosen = near and (how == "fused" or found[2] <= SLOWER * found[1])
            if chosen:
                for candidate in candidates:
                    candidate.use()
            milliseconds = (round(1e3 * seconds, 3) for seconds in found[1:])
            yield Choice(name, layer, list(shape), len(candidates), chosen, found[0], *milliseconds)


def _measure(candidate: Candidate, dtype: torch.dtype, tokens: int) -> tuple[float, float, float]:
    """How far a form is from the plain one, and both forms' seconds."""
    module = candidate.module
    device = next(module.parameters()).device
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(1, tokens, candidate.shape[0], generator=generator)
    x = drawn.to(device, dtype).requires_grad_()
    trained = [p for p in module.parameters() if p.requires_grad]
    start = [p.detach().clone() for p in trained]
    forms = (module.forward, candidate.forward)
    was_training = module.training
    try:
        for parameter in trained:  # half of an adapter starts as nothing, and would show nothing
            noise = torch.randn(parameter.shape, generator=generator) * 0.02
            parameter.data += noise.to(parameter.device, parameter.dtype)
        module.eval()  # or dropout would make a difference of its own
        results = [_pass(form, x, trained, dtype) for form in forms]
        taken = [[_seconds(form, x, trained, dtype) for form in forms] for _ in range(TURNS)]
        plain, fused = (min(turns) for turns in zip(*taken, strict=True))
    finally:
        module.train(was_training)
        for parameter, value in zip(trained, start, strict=True):
            parameter.data.copy_(value)
    distances = [
        float((ours.float() - theirs.float()).norm() / theirs.float().norm().clamp_min(1e-12))
        for theirs, ours in zip(*results, strict=True)
    ]
    distance = max(distances) if all(map(math.isfinite, distances)) else math.inf
    return distance, plain, fused


def _pass(
    form: Callable[..., Any], x: torch.Tensor, trained: list[nn.Parameter], dtype: torch.dtype
) -> list[torch.Tensor]:
    """The output and every gradient."""
    with torch.enable_grad(), computing_in(dtype, x.device):
        out = form(x)
    upstream = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, [x, *trained], upstream)]


def _seconds(
    form: Callable[..., Any], x: torch.Tensor, trained: list[nn.Parameter], dtype: torch.dtype
) -> float:
    _wait(x.device)
    began = time.perf_counter()
    _pass(form, x, trained, dtype)
    _wait(x.device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
