"""The recipe's ``training`` section."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class AdapterConfig(BaseModel):
    """Low-rank adapters beside frozen weights (LoRA; QLoRA when the base is quantised)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["lora"] = "lora"
    rank: int = Field(default=16, ge=1)
    """Rank r of the update B A."""
    alpha: float = Field(default=32, gt=0)
    """The update is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = "all-linear"
    """Which layers: every linear layer but the head, or names such as ``[q_proj, v_proj]``."""


class BatchConfig(BaseModel):
    """How many sequences make one optimiser step."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int = Field(default=1, ge=1)
    """Sequences (packs, when packing) in one forward pass."""
    accumulate: int = Field(default=1, ge=1)
    """Forward passes summed, weighted by their tokens, before the optimiser steps."""


class TrainingConfig(BaseModel):
    """How the adapter is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["sft"] = "sft"
    adapter: AdapterConfig = AdapterConfig()
    epochs: float = Field(default=1, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after this many optimiser steps, whatever ``epochs`` says."""
    batch: BatchConfig = BatchConfig()
    learning_rate: float = Field(default=2e-4, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients longer than this are scaled down to it."""
    gradient_checkpointing: bool = False
    """Less memory for about a third more time."""
    evaluate_every: int | None = Field(default=None, ge=1)
    """Steps between validation losses; None: at the start and the end only."""
    checkpoint_every: int | None = Field(default=None, ge=1)
    """Steps between checkpoints; None: about ten a run."""
    keep_checkpoints: int = Field(default=2, ge=1)
    patience: Annotated[int, Field(ge=1)] = 20
    """Steps with a loss above the start's (before the first step, or of it) before training is
    stopped as diverged."""
    seed: int = 0
