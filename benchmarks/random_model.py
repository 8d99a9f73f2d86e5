"""A causal language model of a known shape with random weights, written as a model folder.

Nothing is downloaded: weights are drawn on the device from a seed, one after the other, and written
in bfloat16. Speed and memory of training depend on shapes, not on what the weights know.
"""

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

SHARD = 2 * 2**30
"""Bytes of weights in a file."""
SPARE = 6 * 2**30
"""Bytes of disk that checkpoints and adapters need beside the weights."""
SPECIAL = ("<unk>", "<s>", "</s>")


@dataclass(frozen=True)
class Shape:
    """How large a model is, and what of it a benchmark trains."""

    vocabulary: int
    width: int
    mlp_width: int
    layers: int
    heads: int
    key_heads: int
    rank: int
    """Of the adapters."""
    tokens: int
    """The most a row has, and what a pack holds."""

    @property
    def linear_layers(self) -> list[tuple[int, int]]:
        """Inputs and outputs of the matrices of one layer."""
        keys = self.width // self.heads * self.key_heads
        return [
            *[(self.width, self.width)] * 2,
            *[(self.width, keys)] * 2,
            *[(self.width, self.mlp_width)] * 2,
            (self.mlp_width, self.width),
        ]

    @property
    def weights(self) -> int:
        """Numbers in all its matrices; its norms' are left out."""
        of_layer = sum(inputs * outputs for inputs, outputs in self.linear_layers)
        return self.layers * of_layer + 2 * self.vocabulary * self.width


SHAPES = {
    "mistral-7b": Shape(32000, 4096, 14336, 32, 32, 8, rank=64, tokens=2048),
    "tiny": Shape(512, 64, 128, 2, 4, 2, rank=8, tokens=128),
}


def write_model(shape: Shape, folder: Path, device: torch.device, seed: int) -> None:
    """Write a model folder, without a tokenizer; one that is there already is left as it is.

    Args:
        shape: of the model.
        folder: where to; weights of another shape in it are replaced.
        device: where weights are drawn. The same seed gives other weights on another device.
        seed: decides them.

    Raises:
        SystemExit: the disk is too small.
    """
    config = _config(shape)
    made = {"config": config.to_json_string(), "seed": seed}
    note = folder / "made.json"  # written last: a folder without it was left half written
    if note.is_file() and json.loads(note.read_text()) == made:
        return
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if 2 * shape.weights + SPARE > free:
        raise SystemExit(
            f"{folder}: the weights take {2 * shape.weights / 1e9:.1f} GB, checkpoints "
            f"{SPARE / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free. Name another --folder."
        )
    for left in [note, *folder.glob("*.safetensors")]:
        left.unlink(missing_ok=True)
    _write_weights(
        parameter_shapes(shape), shape.width, folder, torch.Generator(device).manual_seed(seed)
    )
    config.save_pretrained(folder)
    note.write_text(json.dumps(made))


def _config(shape: Shape) -> MistralConfig:
    return MistralConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.mlp_width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        sliding_window=None,
        tie_word_embeddings=False,
        dtype="bfloat16",
        architectures=["MistralForCausalLM"],
    )


def parameter_shapes(shape: Shape) -> dict[str, torch.Size]:
    """The names and sizes of a model's weights; nothing is allocated."""
    with torch.device("meta"):
        model = MistralForCausalLM(_config(shape))
    return {name: parameter.shape for name, parameter in model.named_parameters()}


def _write_weights(
    shapes: dict[str, torch.Size], width: int, folder: Path, generator: torch.Generator
) -> None:
    """Draw weights small enough that the first loss is near that of a guess (arXiv 1910.05895)."""
    deviation = math.sqrt(2 / (5 * width))
    places: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    names = list(shapes)
    for name in names:
        drawn = torch.ones(shapes[name], dtype=torch.bfloat16)
        if len(shapes[name]) > 1:
            drawn = torch.empty(shapes[name], dtype=torch.bfloat16, device=generator.device)
            drawn.normal_(0, deviation, generator=generator)
        shard[name] = drawn.cpu()
        places[name] = f"model-{len(set(places.values())) + (len(shard) == 1):05}.safetensors"
        if sum(each.nbytes for each in shard.values()) >= SHARD or name == names[-1]:
            save_file(shard, folder / places[name], metadata={"format": "pt"})
            shard = {}
    total = sum(2 * size.numel() for size in shapes.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer with a word for every id: TRL wants one, to ask it for the padding token."""
    words = [*SPECIAL, *(f"w{index}" for index in range(len(SPECIAL), vocabulary))]
    backend = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=SPECIAL[0]))
    unknown, begin, end = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=unknown,
        bos_token=begin,
        eos_token=end,
        pad_token=end,
    )


def training_flops(shape: Shape, row_lengths: NDArray[np.int64], supervised: int) -> float:
    """Floating-point operations that training on rows needs at least, each row once.

    Frozen matrices are multiplied forward and for the gradient of their input; adapters also for
    their own; the head at supervised positions only; attention scores below the diagonal only.
    What is computed twice (checkpointed layers) or besides (dequantised weights) is not counted.

    Args:
        shape: of the model.
        row_lengths: tokens of every row.
        supervised: tokens that carry loss.
    """
    tokens = float(row_lengths.sum())
    frozen = sum(inputs * outputs for inputs, outputs in shape.linear_layers)
    adapters = sum(shape.rank * (inputs + outputs) for inputs, outputs in shape.linear_layers)
    layers = shape.layers * tokens * (4 * frozen + 6 * adapters)
    attention = shape.layers * 6 * shape.width * float((row_lengths.astype(float) ** 2).sum())
    return layers + attention + 4.0 * shape.vocabulary * shape.width * supervised
