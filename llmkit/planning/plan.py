"""A recipe's plan: memory, steps, time, and which machines it fits."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from data_prep.prepared import PreparedDataset
from llmkit.errors import UsageError
from llmkit.models.loading import choose_device, compute_dtype
from llmkit.planning.changes import smaller_recipes
from llmkit.planning.estimate import Estimate, Shapes, count_shapes, on_cpu, on_gpu
from llmkit.planning.tracing import CannotTrace
from llmkit.planning.workload import Workload, assumed_workload, workload_of
from llmkit.recipe import Recipe
from llmkit.training.kernels.choice import Key
from llmkit.training.process_settings import Processes
from llmkit.training.step_count import plan_steps

FORMS_TRIED = (
    "faster forms of layers, which training tries first and takes unless they are much slower "
    "here; in their plain forms {} GiB"
)
GPUS = (8, 16, 24, 40, 80)
"""Kinds of GPU, GiB."""


@dataclass(frozen=True)
class Fit:
    """Whether a training fits a kind of GPU."""

    gib: int
    needs: int
    """Bytes."""
    fits: bool
    change: str | None
    """The first single change, as words of the command line, with which it would."""


@dataclass(frozen=True)
class MemoryPlan:
    """What a recipe's training takes."""

    name: str
    device: str
    compute_dtype: str
    shapes: Shapes
    source: str
    """What the heaviest step is known from."""
    here: Estimate
    """On the device that the recipe chooses on this machine."""
    available: int
    """Bytes that this machine has for it."""
    change: str | None
    """When it does not fit here: the first single change with which it would."""
    gpus: list[Fit]
    steps: int | None
    """None while the data is not prepared and no number of steps is given."""
    tokens: int | None
    """Expected, over all steps."""
    tokens_per_second: float | None
    """Measured, by a probe or an earlier training; None otherwise."""
    rate_source: str
    layers: str = ""
    """Which forms of layers were counted, where training chooses."""
    measured: int | None = None
    """The peak that a probe measured, bytes; None without one."""

    @property
    def peak(self) -> int:
        """Bytes, measured where they were."""
        return self.here.peak if self.measured is None else self.measured

    @property
    def fits(self) -> bool:
        """Whether it fits here."""
        return self.peak <= self.available

    @property
    def seconds(self) -> float | None:
        """Expected, of the steps alone; None where no speed was measured."""
        if self.tokens is None or self.tokens_per_second is None:
            return None
        return self.tokens / self.tokens_per_second

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        shapes = {
            "parameters": self.shapes.parameters,
            "trainable_parameters": self.shapes.trainable,
            "quantized_parameters": self.shapes.quantized_parameters,
            "longest_step_tokens": self.shapes.tokens,
        }
        return {
            "name": self.name,
            "device": self.device,
            "compute_dtype": self.compute_dtype,
            **shapes,
            "longest_step_from": self.source,
            "layers_counted": self.layers,
            "lines": [asdict(line) for line in self.here.lines],
            "phases": self.here.phases,
            "counted_bytes": self.here.peak,
            "measured_bytes": self.measured,
            "peak_bytes": self.peak,
            "available_bytes": self.available,
            "fits": self.fits,
            "change": self.change,
            "gpus": [asdict(fit) for fit in self.gpus],
            "steps": self.steps,
            "tokens": self.tokens,
            "tokens_per_second": self.tokens_per_second,
            "tokens_per_second_from": self.rate_source,
            "seconds": self.seconds,
        }


def make_plan(
    recipe: Recipe,
    folder: Path,
    prepared: PreparedDataset | None,
    rate: tuple[float | None, str] = (None, ""),
    teacher: Path | None = None,
    chosen: Collection[Key] | None = None,
) -> MemoryPlan:
    """Plan a recipe's training; no weights are loaded.

    Args:
        recipe: what to train, and how.
        folder: the base model's folder.
        prepared: its data, if it is prepared.
        rate: tokens per second and where they were measured, if they were.
        teacher: the folder of the model that is distilled.
        chosen: the faster forms of layers that a training of this recipe chose here, if one did.

    Raises:
        UsageError: the recipe cannot be trained; training would say the same.
    """
    process = psutil.Process().memory_info().rss
    device = choose_device(recipe.model.device)
    dtype = compute_dtype(device)
    workload = workload_for(recipe, prepared)
    counted = _Counted(folder, prepared, teacher)
    shapes = counted.of(recipe, dtype, chosen)
    here = _estimate(shapes, device, process, recipe)
    available = memory_of(device, process)
    change = None
    if here.peak > available:
        change = _change(
            recipe,
            lambda smaller: (
                _estimate(counted.of(smaller, dtype), device, process, smaller).peak <= available
            ),
        )
    layers = ""
    if recipe.training.kernels == "auto" and chosen is None:
        plain = _estimate(counted.of(recipe, dtype, ()), device, process, recipe)
        layers = FORMS_TRIED.format(gib(plain.peak))
    elif recipe.training.kernels == "auto":
        layers = "the faster forms of layers that this run's training chose"
    steps = recipe.training.max_steps
    tokens = None
    if workload.sequences and workload.tokens:
        steps = plan_steps(recipe.training, workload.sequences).steps
        batch = recipe.training.batch
        each = workload.tokens / workload.sequences
        an_epoch = min(batch.rows * batch.accumulate, workload.sequences)
        tokens = round(steps * an_epoch * each)
    return MemoryPlan(
        name=recipe.name,
        device=str(device),
        compute_dtype=str(dtype).removeprefix("torch."),
        shapes=shapes,
        source=workload.source,
        here=here,
        available=available,
        change=change,
        gpus=list(_gpus(recipe, counted, chosen if device.type == "cuda" else None)),
        steps=steps,
        tokens=tokens,
        tokens_per_second=rate[0],
        rate_source=rate[1],
        layers=layers,
    )


def warning_of(
    recipe: Recipe,
    folder: Path,
    prepared: PreparedDataset,
    teacher: Path | None = None,
    *,
    processes: Processes | None = None,
) -> str | None:
    """What to tell a person before a training that does not fit here.

    None when it fits, and when nobody can say: of weights that are shared out over GPUs.
    """
    if processes and processes.shares_weights:
        return None
    process = psutil.Process().memory_info().rss
    device = choose_device(recipe.model.device)
    dtype = compute_dtype(device)
    try:
        shapes = _Counted(folder, prepared, teacher).of(recipe, dtype)
    except CannotTrace:
        return None
    found = _estimate(shapes, device, process, recipe)
    available = memory_of(device, process)
    # On a CPU they share the machine's memory; each GPU has its own.
    together = processes.here if processes and device.type == "cpu" else 1
    if together * found.peak <= available:
        return None
    phase = max(found.phases, key=lambda name: found.phases[name])
    each = f"{together} x " if together > 1 else ""
    return (
        f"warning: this training needs about {each}{gib(found.peak)} GiB ({phase}) and "
        f"{gib(available)} "
        f"GiB are there on {device}; it may be ended without a word when memory is gone. "
        "`llmkit plan RECIPE` shows the arithmetic and what would make it fit."
    )


def workload_for(recipe: Recipe, prepared: PreparedDataset | None) -> Workload:
    """The heaviest sequences: of prepared data where there is some."""
    if prepared is not None:
        return workload_of(prepared, recipe.training)
    return assumed_workload(recipe.data.max_tokens, recipe.data.packing, recipe.training)


def memory_of(device: torch.device, process: int) -> int:
    """Bytes that this process can come to hold."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info()[1])
    return int(psutil.virtual_memory().available) + process


def gib(size: int) -> str:
    """Bytes as GiB with one digit."""
    return f"{size / 2**30:.1f}"


class _Counted:
    """Counts each variant of a recipe once."""

    def __init__(
        self, folder: Path, prepared: PreparedDataset | None, teacher: Path | None
    ) -> None:
        self._folder = folder
        self._teacher = teacher
        self._prepared = prepared
        self._tokens: int | None = None
        self._found: dict[str, Shapes] = {}

    def of(
        self, recipe: Recipe, dtype: torch.dtype, chosen: Collection[Key] | None = None
    ) -> Shapes:
        """The shapes of a recipe; shorter rows than were prepared are assumed, not cut.

        Where training chooses forms of layers, those that are ``chosen`` are counted: by default
        all, as it takes them unless they are much slower.
        """
        self._tokens = self._tokens or recipe.data.max_tokens
        prepared = self._prepared if recipe.data.max_tokens == self._tokens else None
        forms = chosen if recipe.training.kernels == "auto" else None
        key = (
            f"{recipe.model_dump_json()} {dtype} {sorted(chosen) if chosen is not None else chosen}"
        )
        if key not in self._found:
            self._found[key] = count_shapes(
                self._folder,
                recipe.model.quantization,
                recipe.training,
                workload_for(recipe, prepared),
                dtype,
                self._teacher,
                forms,
            )
        return self._found[key]


def _estimate(shapes: Shapes, device: torch.device, process: int, recipe: Recipe) -> Estimate:
    if device.type == "cuda":
        return on_gpu(shapes, recipe.training)
    return on_cpu(shapes, process, recipe.training)


def _gpus(recipe: Recipe, counted: _Counted, chosen: Collection[Key] | None) -> Iterator[Fit]:
    """Each kind of GPU; changes are counted only where they are needed."""
    needs = on_gpu(counted.of(recipe, torch.bfloat16, chosen), recipe.training).peak
    for size in GPUS:
        fits = needs <= size * 2**30
        change = None
        if not fits:
            change = _change(recipe, partial(_fits_gpu, counted, size))
        yield Fit(size, needs, fits, change)


def _fits_gpu(counted: _Counted, size: int, recipe: Recipe) -> bool:
    shapes = counted.of(recipe, torch.bfloat16)
    return on_gpu(shapes, recipe.training).peak <= size * 2**30


def _change(recipe: Recipe, fits: Callable[[Recipe], bool]) -> str | None:
    """The first single change with which a training fits, as words of the command line."""
    for words, smaller in smaller_recipes(recipe):
        try:
            if fits(smaller):
                return words
        except (UsageError, CannotTrace):  # what is asked for does not go with this change
            continue
    return None
