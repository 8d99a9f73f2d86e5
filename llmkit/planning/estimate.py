"""How much memory a training takes, line by line, from shapes."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llmkit.models import trained
from llmkit.models.settings import Quantization
from llmkit.models.vocabulary import read_extension
from llmkit.models.weight_files import WeightFiles, read_heads
from llmkit.planning.moments import WORDS, moments_of
from llmkit.planning.shapes import base_shapes, base_tensors, trained_shapes
from llmkit.planning.tracing import Traced, trace
from llmkit.planning.workload import Workload
from llmkit.training import loss
from llmkit.training.kernels.choice import Key
from llmkit.training.settings import LoraAdapter, TrainingConfig

MIB = 2**20
FIRST_USE = 155 * MIB
"""What libraries take when they first compute, beyond having been imported: more of their files,
kernels that oneDNN makes, threads and their arenas. Fitted, with `llmkit.planning.ledger.HOLES`, to
the peaks that benchmarks/plan.py measures."""
CUDA_CONTEXT = 512 * MIB
"""What CUDA and its libraries take of a GPU before any tensor (customary; not measured yet)."""
CUDA_HOLES = 1.05
"""What a GPU's allocator takes over the most that was live (customary; not measured yet)."""


@dataclass(frozen=True)
class Line:
    """One line of the arithmetic."""

    what: str
    bytes: int
    how: str


@dataclass(frozen=True)
class Estimate:
    """The memory of one training on one device."""

    lines: list[Line]
    """Of the longest step; they add up to its peak."""
    phases: dict[str, int]
    """The peak of each part of a training, bytes."""

    @property
    def peak(self) -> int:
        """The most of all parts."""
        return max(self.phases.values())


@dataclass(frozen=True)
class Shapes:
    """What was counted on shapes; bytes."""

    parameters: int
    """Of the base."""
    trainable: int
    quantized_parameters: int
    plain: int
    plain_dtype: torch.dtype
    quantized: int
    scales: int
    file: int
    """The weight files."""
    in_place: int
    """Of plain weights those that stay where the file is mapped, in its type."""
    added: int
    """Trainable parameters that the base did not have."""
    gradients: int
    moments: int
    largest_quantized: int
    """The largest layer once dequantised."""
    logits: int
    """One chunk of logits in float32."""
    tokens: int
    """Of the longest forward pass."""
    rows: int
    supervised: int
    teacher: int
    """A distilled teacher's weights."""
    traced: Traced

    @property
    def weights(self) -> int:
        """The base as it is held."""
        return self.plain + self.quantized + self.scales + self.teacher

    @property
    def rest_of_file(self) -> int:
        """What stays mapped of the file besides the weights that are used from there."""
        return max(0, self.file - self.in_place) if self.in_place else 0


def count_shapes(
    folder: Path,
    quantization: Quantization,
    config: TrainingConfig,
    workload: Workload,
    dtype: torch.dtype,
    teacher: Path | None = None,
    forms: Collection[Key] | None = None,
) -> Shapes:
    """Count a training on shapes; no weights are loaded.

    Args:
        folder: the base model, or its outline.
        quantization: how the base is held.
        config: what trains, and how.
        workload: the heaviest sequences.
        dtype: of products.
        teacher: the folder of the model that is distilled.
        forms: the faster forms of layers that are used; None: all, unless ``kernels`` is plain.

    Raises:
        UsageError: the model cannot be trained like that, as training would say.
    """
    held = trained.base_dtype(config.adapter, quantization, dtype, folder)
    base = base_shapes(folder, quantization, held)
    own = base_tensors(base)
    parameters = sum(_numel(p) for p in base.parameters())
    ids = {id(p) for p in base.parameters()}
    quantized = own["quantized"]
    largest = max(map(_numel, quantized), default=0) * dtype.itemsize
    # A model that begins at random is made in float32.
    file = read_heads(folder) or WeightFiles(4 * parameters, frozenset({"float32"}))
    model = trained_shapes(base, config, _new_tokens(folder, config), dtype)
    plain = [p for p in own["plain"] if id(p) in {id(q) for q in model.parameters()}]
    chosen = [p for p in model.parameters() if p.requires_grad]
    states = [each for p in chosen for each in moments_of(config.optimizer, tuple(p.shape))]
    mapped = file.dtypes == {str(held).removeprefix("torch.")}
    frozen = [p for p in plain if not p.requires_grad]
    copied = sum(2 * _numel(each) for each in quantized)
    copied += sum(each.numel() * held.itemsize for each in frozen if each.dtype != held)
    supervised = sum(int(each.supervised.sum()) for each in workload.batch)
    embeddings: Any = base.get_input_embeddings()
    told = base_shapes(teacher, "none", dtype) if teacher else None
    return Shapes(
        parameters=parameters,
        trainable=sum(p.numel() for p in chosen),
        quantized_parameters=sum(map(_numel, quantized)),
        plain=_bytes(plain),
        plain_dtype=held,
        quantized=_bytes(quantized),
        scales=_bytes(own["scales"]),
        file=file.bytes,
        in_place=_bytes(frozen) if mapped else 0,
        added=_bytes([p for p in chosen if id(p) not in ids]),
        gradients=_bytes(chosen),
        moments=sum(states),
        largest_quantized=largest,
        logits=min(supervised, loss.CHUNK) * len(embeddings.weight) * 4,
        tokens=sum(len(each.input_ids) for each in workload.batch),
        rows=sum(len(each.row_lengths) for each in workload.batch),
        supervised=supervised,
        teacher=_bytes(told.parameters()) if told else 0,
        traced=trace(model, config, workload, copied, dtype, told, forms),
    )


def on_cpu(shapes: Shapes, process: int, config: TrainingConfig) -> Estimate:
    """The resident memory of a training on the CPU.

    Args:
        shapes: what was counted.
        process: bytes that the process holds before it loads anything.
        config: the training's settings.
    """
    found, start = shapes.traced, process + FIRST_USE
    held = start + shapes.weights + shapes.rest_of_file + shapes.added
    step = shapes.traced.step
    lines = [
        Line("process", start, "Python and its libraries, as measured in this process"),
        *_held_lines(shapes),
        *_step_lines(shapes, config),
        Line("heap", step[1] - step[0], "what the heap has grown to beyond what is live then"),
    ]
    copied = shapes.rest_of_file if shapes.in_place else shapes.file
    again = shapes.quantized_parameters * shapes.plain_dtype.itemsize
    return Estimate(
        [line for line in lines if line.bytes],
        {
            "loading": start + shapes.weights + copied + again,
            "checks": held + found.checks[1],
            "step": held + shapes.moments + step[1],
            "evaluation": held + shapes.moments + found.evaluation[1],
            "saving": held + shapes.moments,
        },
    )


def on_gpu(shapes: Shapes, config: TrainingConfig) -> Estimate:
    """The memory of a training on a GPU."""
    found = shapes.traced
    held = shapes.weights + shapes.added
    live = {
        "checks": found.checks[0],
        "step": shapes.moments + found.step[0],
        "evaluation": shapes.moments + found.evaluation[0],
    }
    holes = {name: round((held + bytes_) * CUDA_HOLES) for name, bytes_ in live.items()}
    lines = [
        Line("CUDA context", CUDA_CONTEXT, "CUDA and its libraries (customary)"),
        *(line for line in _held_lines(shapes) if line.what != "mapped file"),
        *_step_lines(shapes, config),
        Line("allocator", holes["step"] - held - live["step"], "holes, 5% (customary)"),
    ]
    return Estimate(
        [line for line in lines if line.bytes],
        {name: CUDA_CONTEXT + size for name, size in holes.items()},
    )


def _held_lines(shapes: Shapes) -> list[Line]:
    plain = shapes.parameters - shapes.quantized_parameters
    name = str(shapes.plain_dtype).removeprefix("torch.")
    each = shapes.plain / max(1, plain)
    frozen = Line("base weights", shapes.plain, f"{plain:,} x {each:.3g} bytes ({name})")
    lines = [frozen]
    if shapes.teacher:
        lines.append(Line("teacher", shapes.teacher, "its weights, frozen"))
    if shapes.quantized:
        count, size = shapes.quantized_parameters, shapes.quantized + shapes.scales
        lines.append(
            Line("quantised", size, f"{count:,} x {size / count:.3f} bytes, scales included")
        )
    if shapes.added:
        lines.append(Line("adapter", shapes.added, f"{shapes.added // 4:,} x 4 bytes (float32)"))
    if shapes.rest_of_file:
        how = "the rest of the weight file, which stays mapped for the weights used from it"
        lines.append(Line("mapped file", shapes.rest_of_file, how))
    return lines


def _step_lines(shapes: Shapes, config: TrainingConfig) -> list[Line]:
    count, found = shapes.trainable, shapes.traced
    rest = found.step[0] - shapes.gradients - found.kept
    kept = (
        f"kept for the backward pass: {shapes.tokens:,} tokens x "
        f"{found.kept / max(1, shapes.tokens) / 1024:.1f} KiB"
        + (", gradient checkpointing" if config.gradient_checkpointing else "")
    )
    temporary = (
        f"logits of {min(shapes.supervised, loss.CHUNK)} positions ({shapes.logits / MIB:.0f} MiB"
    )
    temporary += ") more than once, their gradients, other temporaries"
    if shapes.largest_quantized:
        temporary += f", a dequantised layer ({shapes.largest_quantized / MIB:.1f} MiB)"
    if rest < 0:
        temporary = "not all at once: activations go while gradients come"
    return [
        Line("gradients", shapes.gradients, f"{count:,} x 4 bytes (float32)"),
        Line("optimiser", shapes.moments, f"{config.optimizer}: {WORDS[config.optimizer]}"),
        Line("activations", found.kept, kept),
        Line("temporary", rest, temporary),
    ]


def _numel(parameter: torch.Tensor) -> int:
    """Parameters, of a 4-bit weight those that are packed in it."""
    state = getattr(parameter, "quant_state", None)
    return int(state.shape.numel()) if state is not None else parameter.numel()


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(each.numel() * each.itemsize for each in tensors)


def _new_tokens(folder: Path, config: TrainingConfig) -> list[int]:
    extension = read_extension(folder)
    trains = isinstance(config.adapter, LoraAdapter) and config.adapter.new_tokens
    return [row.id for row in extension.added] if extension and trains else []
