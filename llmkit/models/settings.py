"""The recipe's ``model`` and ``merge`` sections."""

from datetime import date
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Quantization = Literal["none", "int8", "nf4"]
Dtype = Literal["bfloat16", "float16", "float32"]


MADE_HERE = "base"
"""What a base is called that a run makes, and its folder in the run directory."""


class NewModel(BaseModel):
    """The shape of a model that begins as random weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Literal["llama"] = "llama"
    """RMSNorm, rotary positions, SwiGLU and grouped-query attention, without biases."""
    tokenizer: str = Field(min_length=1)
    """A folder that `llmkit tokenizer train` wrote, or a model whose tokenizer is taken."""
    layers: int = Field(ge=1)
    width: int = Field(ge=2)
    """Numbers that stand for one token between the layers."""
    heads: int = Field(ge=1)
    """Attention heads of ``width / heads`` numbers each; vLLM serves 32, 64, 80, 96, 112, 128, 160,
    192, 224 or 256 of them."""
    kv_heads: int | None = Field(default=None, ge=1)
    """Heads that keys and values have, shared by as many query heads each; all when left out."""
    mlp_width: int | None = Field(default=None, ge=1)
    """Numbers inside a layer's SwiGLU; 8/3 of ``width`` when left out, up to a multiple of 64."""
    context: int = Field(default=2048, ge=8)
    """The longest sequence it is made for, in tokens."""
    tied: bool = True
    """One matrix for embeddings and output head."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides the weights: the same shape, tokenizer and seed give the same bytes."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads:
            raise ValueError(
                f"width ({self.width}) must be a multiple of heads ({self.heads}): each head has "
                "its equal share"
            )
        each = self.width // self.heads
        if each not in HEAD_WIDTHS:
            raise ValueError(
                f"width / heads is {each}, and vLLM serves heads of "
                f"{', '.join(map(str, HEAD_WIDTHS))}: {_nearest_heads(self.width)}"
            )
        if self.kv_heads and self.heads % self.kv_heads:
            raise ValueError(
                f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads}): as many "
                "query heads share each of them"
            )
        return self


HEAD_WIDTHS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256)
"""What the attention kernels of vLLM 0.32 have on a CPU; those of CUDA have these too."""


def _nearest_heads(width: int) -> str:
    fitting = [str(width // each) for each in HEAD_WIDTHS if width % each == 0]
    if fitting:
        return f"say heads: {' or '.join(reversed(fitting))}"
    return "choose a width that is a multiple of one of them"


class ModelConfig(BaseModel):
    """Which model is tuned, and how its weights are held while it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str = ""
    """A name from `llmkit models list`, a local folder, or a hub id; left out with
    ``initialize``."""
    initialize: NewModel | None = None
    """Begin with random weights of this shape instead of a base."""
    quantization: Quantization = "none"
    """How frozen weights are held: as they are, in 8 bits, or in doubly quantised NF4."""
    chat_template: str = "keep"
    """``keep`` the model's own, a known name, or a path to a .jinja file."""
    template_date: date | None = None
    """For a template that writes today's date: the day it writes instead (2024-07-26), in training
    and in serving; it is saved with the model."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; ``auto`` is CUDA where there is one."""

    @property
    def name(self) -> str:
        """What the base is called in messages and in what is left."""
        return self.base or MADE_HERE

    @model_validator(mode="after")
    def _one_beginning(self) -> Self:
        if bool(self.base) == bool(self.initialize):
            raise ValueError(
                "a model begins either as another one (base: a name from `llmkit models list`, a "
                "folder or a hub id) or with random weights (initialize: its shape); say one of "
                "them"
            )
        if self.initialize and self.quantization != "none":
            raise ValueError(
                f"quantization ({self.quantization}) holds frozen weights, and all weights of a "
                "model that begins at random are trained: leave it out"
            )
        return self


class MergeConfig(BaseModel):
    """How the adapter is written into the weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: Dtype = "bfloat16"
    """The type of the merged weights."""
    target: Literal["closest", "base", "dequantized"] = "closest"
    """For a quantised base: the 16-bit base, the dequantised one, or the one measured closer."""
    max_divergence: float = Field(default=0.1, gt=0)
    """Largest mean KL divergence (nats a token) from the trained model that merging may cause."""
