"""The recipe's ``training`` section."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


class LoraAdapter(BaseModel):
    """Low-rank adapters beside frozen weights (LoRA; QLoRA when the base is quantised)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["lora"] = "lora"
    rank: int = Field(default=16, ge=1)
    """Rank r of the update B A."""
    alpha: float = Field(default=32, gt=0)
    """The update is scaled by alpha / rank."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead: high ranks keep their effect (arXiv 2312.03732)."""
    dora: bool = False
    """Train the length of each weight row apart from its direction (DoRA, arXiv 2402.09353)."""
    init: Literal["zero", "pissa"] = "zero"
    """What an adapter starts as: nothing (B is zero), or the base's largest singular directions,
    which are taken out of the base (PiSSA, arXiv 2404.02948)."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = "all-linear"
    """Which layers: every linear layer but the head; names such as ``[q_proj, v_proj]``; or regular
    expressions of whole paths, ``['model\\.layers\\.[0-3]\\..*_proj']``."""
    modules_to_save: list[str] = []
    """Layers that are trained whole beside the adapters: ``[embed_tokens, lm_head]``."""
    new_tokens: bool = True
    """Train the embeddings of tokens that `llmkit tokenizer extend` added, and of them alone."""
    lora_plus: float | None = Field(default=None, ge=1)
    """The learning rate of B over that of A (LoRA+, arXiv 2402.12354); None: one rate for both."""

    @model_validator(mode="after")
    def _pissa_is_a_difference(self) -> Self:
        if self.init == "pissa" and self.dora:
            raise ValueError(
                "init=pissa and dora=true do not go together: what PiSSA learned is kept as a "
                "difference from its start, and DoRA's lengths are none"
            )
        return self


class Freeze(BaseModel):
    """The last layers are trained whole, all before them stay as they are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["freeze"]
    layers: int = Field(ge=0)
    """How many of the last layers train, the norm after them included."""
    embeddings: bool = False
    """Train the embeddings too; where they are tied to the head, this trains the head."""
    head: bool = False
    """Train the output head too."""

    @model_validator(mode="after")
    def _something_trains(self) -> Self:
        if not (self.layers or self.embeddings or self.head):
            raise ValueError("nothing would train: set layers, embeddings or head")
        return self


class Full(BaseModel):
    """Every weight is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["full"]


def _lora_unless_said(value: Any) -> Any:
    return {"kind": "lora", **value} if isinstance(value, dict) else value


AdapterConfig = Annotated[
    Annotated[LoraAdapter | Freeze | Full, Field(discriminator="kind")],
    BeforeValidator(_lora_unless_said),
]
"""What trains: ``{rank: 16}`` (LoRA), ``{kind: freeze, layers: 4}``, ``{kind: full}``."""

Method = Literal["sft", "pretrain", "dpo", "kto", "orpo", "reward", "distill"]
Kernels = Literal["auto", "plain", "fused"]
Optimizer = Literal[
    "adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "lion", "adafactor", "sgd"
]
Tracker = Literal["wandb", "tensorboard", "mlflow", "trackio"]


class BatchConfig(BaseModel):
    """How many sequences make one optimiser step: ``rows * accumulate``, on every process.

    With several processes (``llmkit train --processes``) a step has as many times more.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int = Field(default=1, ge=1)
    """Sequences (packs, when packing) in one forward pass of one process."""
    accumulate: int = Field(default=1, ge=1)
    """Forward passes summed, weighted by their tokens, before the optimiser steps."""


class PreferenceConfig(BaseModel):
    """What dpo, kto and orpo weigh; reward needs nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    beta: float = Field(default=0.1, gt=0)
    """How closely dpo and kto hold the model to its reference; orpo: weight of the odds ratio."""
    loss: Literal["sigmoid", "hinge", "ipo"] = "sigmoid"
    """dpo's: of DPO (arXiv 2305.18290), SLiC (2305.10425), IPO (2310.12036)."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """dpo, sigmoid: the share of pairs whose sides are expected to be swapped (cDPO)."""
    desirable_weight: float = Field(default=1.0, ge=0)
    """kto: weight of rows labelled good."""
    undesirable_weight: float = Field(default=1.0, ge=0)
    """kto: weight of rows labelled bad."""


class DistillationConfig(BaseModel):
    """A larger model's predictions as the target."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    teacher: str = Field(min_length=1)
    """A model with the same vocabulary: a catalogue name, a folder, or a hub id."""
    temperature: float = Field(default=1.0, gt=0)
    """Both models' logits are divided by it before they are compared."""
    weight: float = Field(default=0.5, gt=0, le=1)
    """Of the divergence from the teacher; the rest is the rows' own cross-entropy."""


class EarlyStopping(BaseModel):
    """When the validation loss no longer falls."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    evaluations: int = Field(default=3, ge=1)
    """Evaluations in a row without a better loss after which training ends."""
    min_delta: float = Field(default=0.0, ge=0)
    """How much lower counts as better, nats."""


class TrainingConfig(BaseModel):
    """How the model is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Method = "sft"
    """What is learned from rows: their supervised tokens (sft), all of a text (pretrain), a
    preference (dpo, kto, orpo), a score (reward), a teacher's predictions (distill)."""
    adapter: AdapterConfig = LoraAdapter()
    preference: PreferenceConfig = PreferenceConfig()
    distillation: DistillationConfig | None = None
    epochs: float = Field(default=1, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after this many optimiser steps, whatever ``epochs`` says."""
    batch: BatchConfig = BatchConfig()
    optimizer: Optimizer = "adamw"
    """8-bit ones keep Adam's moments smaller; paged ones, on CUDA alone, in pages that may lie in
    the machine's memory."""
    learning_rate: float = Field(default=2e-4, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients longer than this are scaled down to it."""
    neftune_alpha: float | None = Field(default=None, gt=0)
    """Noise on the embeddings while training (NEFTune, arXiv 2310.05914); 5 is customary."""
    gradient_checkpointing: bool | Literal["offload"] = False
    """Less memory for about a third more time; ``offload`` keeps what remains in the machine's
    memory instead of the GPU's."""
    kernels: Kernels = "auto"
    """Forms of layers that are faster and need less memory: ``auto`` tries them beside the plain
    ones before the first step, ``fused`` takes all that compute the same, ``plain`` none."""
    evaluate_every: int | None = Field(default=None, ge=1)
    """Steps between validation losses; None: at the start and the end only."""
    early_stopping: EarlyStopping | None = None
    """End when the validation loss no longer falls; needs ``evaluate_every``."""
    keep: Literal["last", "best"] = "last"
    """Which weights are the result: those after the last step, or those of the evaluation with the
    lowest validation loss."""
    checkpoint_every: int | None = Field(default=None, ge=1)
    """Steps between checkpoints; None: about ten a run."""
    keep_checkpoints: int = Field(default=2, ge=1)
    patience: Annotated[int, Field(ge=1)] = 20
    """Steps with a loss above the start's (before the first step, or of it) before training is
    stopped as diverged."""
    trackers: tuple[Tracker, ...] = ()
    """Where else the figures of every step go."""
    seed: int = 0

    @model_validator(mode="after")
    def _a_teacher_is_for_distilling(self) -> Self:
        if self.method == "distill" and self.distillation is None:
            raise ValueError(
                "method=distill needs a teacher: distillation: {teacher: a catalogue name, a "
                "folder or a hub id}"
            )
        if self.method != "distill" and self.distillation is not None:
            raise ValueError(
                f"distillation is for method=distill, and method is {self.method}: set that, or "
                "leave distillation out"
            )
        return self
