"""The recipe's ``model`` and ``merge`` sections."""

from datetime import date
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Quantization = Literal["none", "int8", "nf4"]
Dtype = Literal["bfloat16", "float16", "float32"]


class ModelConfig(BaseModel):
    """Which model is tuned, and how its weights are held while it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str = Field(min_length=1)
    """A name from `llmkit models list`, a local folder, or a hub id."""
    quantization: Quantization = "none"
    """How frozen weights are held: as they are, in 8 bits, or in doubly quantised NF4."""
    chat_template: str = "keep"
    """``keep`` the model's own, a known name, or a path to a .jinja file."""
    template_date: date | None = None
    """For a template that writes today's date: the day it writes instead (2024-07-26), in training
    and in serving; it is saved with the model."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; ``auto`` is CUDA where there is one."""


class MergeConfig(BaseModel):
    """How the adapter is written into the weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: Dtype = "bfloat16"
    """The type of the merged weights."""
    target: Literal["closest", "base", "dequantized"] = "closest"
    """For a quantised base: the 16-bit base, the dequantised one, or the one measured closer."""
    max_divergence: float = Field(default=0.1, gt=0)
    """Largest mean KL divergence (nats a token) from the trained model that merging may cause."""
