"""Supervised fine-tuning: the transformers Trainer with our batches and our loss."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from data_prep.prepared import PreparedDataset
from llmkit.errors import UsageError
from llmkit.models.adapters import attach, base_of, save, trainable_figures
from llmkit.models.loading import choose_device, compute_dtype, computing_in, load_base, quiet
from llmkit.models.settings import ModelConfig
from llmkit.training.batching import Sequence, Sequences, collate, to_device
from llmkit.training.checkpoints import keep_newest, mark_whole, step_of
from llmkit.training.isolation import check_rows_are_apart
from llmkit.training.loss import supervised_loss
from llmkit.training.progress import (
    MARGIN,
    Diverged,
    Events,
    Guard,
    Meter,
    TrainingView,
    memory_mib,
    read_events,
)
from llmkit.training.settings import TrainingConfig

START_SAMPLE = 4
"""Sequences that the loss at the start is measured on when nothing is held out."""


@dataclass(frozen=True)
class Plan:
    """How long a training is, known before anything is loaded."""

    sequences: int
    steps_an_epoch: int
    steps: int
    checkpoint_every: int


def plan_steps(config: TrainingConfig, sequences: int) -> Plan:
    """Count the optimiser steps of a training.

    Raises:
        UsageError: the warm-up is as long as the training, so that the learning rate would never
            reach its value.
    """
    batch = config.batch.rows * config.batch.accumulate
    an_epoch = math.ceil(math.ceil(sequences / config.batch.rows) / config.batch.accumulate)
    steps = config.max_steps or math.ceil(config.epochs * an_epoch)
    if config.warmup_steps >= steps:
        raise UsageError(
            f"training.warmup_steps: {config.warmup_steps} of {steps} steps ({sequences} sequences,"
            f" {batch} a step, {config.epochs:g} epochs): the learning rate would never reach its "
            "value. Lower warmup_steps, or train longer."
        )
    return Plan(sequences, an_epoch, steps, config.checkpoint_every or max(1, steps // 10))


class _SupervisedTrainer(Trainer):
    """The transformers Trainer, computing logits only where a token is supervised."""

    def __init__(self, *, meter: Meter, guard: Guard, dtype: torch.dtype, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.dtype = dtype
        self.meter = meter
        self.guard = guard
        self.model_accepts_loss_kwargs = True  # our loss is already the mean over the whole step

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: FBT001, FBT002 (the Trainer's signature)
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Summed cross-entropy over the number of targets of the whole optimiser step."""
        del return_outputs
        base = base_of(self.accelerator.unwrap_model(model))
        with computing_in(self.dtype, base.device):
            total = supervised_loss(base, inputs)
        value = float(total.detach())
        targets = len(inputs["shift_labels"])
        if not math.isfinite(value):
            self.guard.check(value, self.state.global_step + 1)
        self.meter.add(value, targets, inputs["input_ids"].numel())
        if num_items_in_batch is None:
            raise RuntimeError("the Trainer did not count the targets of the optimiser step")
        return total / num_items_in_batch

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, Any]], device: torch.device
    ) -> torch.Tensor:
        """Targets of all forward passes of one step; the Trainer's own looks for other keys."""
        count = sum(len(batch["shift_labels"]) for batch in batch_samples)
        return torch.tensor(count, device=device)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        folder = Path(str(self.args.output_dir))
        mark_whole(folder / f"checkpoint-{self.state.global_step}")


class _Watch(TrainerCallback):
    """Writes events, draws progress, decides about checkpoints, and stops what diverges."""

    def __init__(
        self,
        config: TrainingConfig,
        plan: Plan,
        run: "_Running",
        events: Events,
        view: TrainingView,
    ) -> None:
        self.config = config
        self.plan = plan
        self.run = run
        self.events = events
        self.view = view
        self.last: dict[str, Any] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Close the step; save only while the loss is where it should be."""
        self.last = self.run.meter.close()
        self.run.guard.check(self.last["loss"], state.global_step)
        due = state.global_step % self.plan.checkpoint_every == 0
        is_last = state.global_step >= self.plan.steps
        control.should_save = (due or is_last) and self.run.guard.streak == 0
        every = self.config.evaluate_every
        if every and state.global_step % every == 0 and not is_last:
            self.run.validate(state.global_step)
        return control

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any
    ) -> None:
        """The Trainer knows the gradient's norm and the learning rate."""
        if logs and "learning_rate" in logs:
            event = {
                "event": "step",
                "step": state.global_step,
                **self.last,
                "learning_rate": logs["learning_rate"],
                "gradient_norm": float(logs.get("grad_norm", 0.0)),
                "memory_mib": memory_mib(),
            }
            self.events.write(event)
            self.view.step(event, self.plan.steps)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Older checkpoints go only after the new one is whole."""
        keep_newest(Path(args.output_dir), self.config.keep_checkpoints)


@dataclass
class _Running:
    """What the Trainer, its callback and `train` share."""

    model: PeftModel
    validation: Sequences
    meter: Meter
    guard: Guard
    events: Events
    view: TrainingView
    dtype: torch.dtype

    def validate(self, step: int) -> float | None:
        """Measure and report the validation loss; None when nothing is held out."""
        if not len(self.validation):
            return None
        loss = mean_loss(self.model, list(self.validation), self.dtype)
        self.events.write({"event": "validation", "step": step, "loss": loss})
        self.view.say(f"step {step}: validation loss {loss:.4f}")
        return loss


@torch.no_grad()
def mean_loss(model: nn.Module, sequences: list[Sequence], dtype: torch.dtype) -> float:
    """The mean cross-entropy of supervised tokens, in nats, without training."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    total, targets = 0.0, 0
    for sequence in sequences:
        batch = to_device(collate([sequence]), device)
        with computing_in(dtype, device):
            total += float(supervised_loss(base_of(model), batch))
        targets += len(batch["shift_labels"])
    model.train(was_training)
    return total / max(1, targets)


def _arguments(
    config: TrainingConfig, plan: Plan, folder: Path, device: torch.device, dtype: torch.dtype
) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=plan.steps,
        per_device_train_batch_size=config.batch.rows,
        gradient_accumulation_steps=config.batch.accumulate,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch_fused",
        fp16=dtype == torch.float16,
        gradient_checkpointing=config.gradient_checkpointing,
        seed=config.seed,
        data_seed=config.seed,
        use_cpu=device.type == "cpu",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        save_total_limit=None,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=device.type == "cuda",
    )


def train(
    config: TrainingConfig,
    model_config: ModelConfig,
    model_folder: Path,
    prepared: PreparedDataset,
    *,
    checkpoints: Path,
    resume_from: Path | None,
    events_path: Path,
    adapter: Path,
    view: TrainingView,
) -> dict[str, Any]:
    """Train an adapter on a prepared data set.

    Args:
        config: how.
        model_config: quantisation and device; its ``base`` names the model in the adapter's files.
        model_folder: the base model's weights.
        prepared: packed sequences.
        checkpoints: where checkpoints go.
        resume_from: a whole checkpoint of this very training, or None.
        events_path: where the steps are written.
        adapter: an empty folder to write the adapter into.
        view: where a person watches.

    Returns:
        Figures: steps, losses, tokens per second, memory, what trained.

    Raises:
        Diverged: the loss became NaN, stayed above its start, or ended there; the last good
            checkpoint is kept.
        UsageError: settings and model or data do not fit.
        CheckFailed: rows of a pack see each other on this model.
    """
    sequences = Sequences(prepared.sequences("train"))
    plan = plan_steps(config, len(sequences))
    device = choose_device(model_config.device)
    dtype = compute_dtype(device)
    quiet()
    view.say(f"loading {model_config.base} ({model_config.quantization}, {device}, {dtype})")
    base = load_base(model_folder, quantization=model_config.quantization, device=device)
    model = attach(base, config.adapter, config.seed)
    isolation = check_rows_are_apart(base_of(model), sequences, dtype)

    validation = Sequences(prepared.sequences("validation"))
    start_sample = list(validation) or [
        sequences[i] for i in range(min(START_SAMPLE, len(sequences)))
    ]
    start_loss = mean_loss(model, start_sample, dtype)
    events = Events(events_path, step_of(resume_from) if resume_from else 0)
    meter, guard = Meter(), Guard(start_loss, config.patience)
    running = _Running(model, validation, meter, guard, events, view, dtype)
    if not resume_from and len(validation):
        events.write({"event": "validation", "step": 0, "loss": start_loss})
        view.say(f"step 0: validation loss {start_loss:.4f}")
    trainer = _SupervisedTrainer(
        meter=meter,
        guard=guard,
        dtype=dtype,
        model=model,
        args=_arguments(config, plan, checkpoints, device, dtype),
        train_dataset=sequences,
        data_collator=collate,
        callbacks=[_Watch(config, plan, running, events, view)],
    )
    trainer.remove_callback(_printer())
    if resume_from:
        view.say(f"resuming after step {step_of(resume_from)}")
    try:
        meter.close()
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    except Diverged as error:
        raise Diverged(f"{error}\n{_last_good(checkpoints)}") from None
    final_loss = running.validate(plan.steps)
    events.close()
    end_loss = mean_loss(model, start_sample, dtype) if final_loss is None else final_loss
    if not end_loss <= MARGIN * start_loss:
        raise Diverged(
            f"after {plan.steps} steps the loss is {end_loss:.2f}; before them it was "
            f"{start_loss:.2f}: the training made the model worse.\n{_last_good(checkpoints)}"
        )
    save(model, adapter, model_config.base)
    return {
        "steps": plan.steps,
        "sequences": plan.sequences,
        "isolation": isolation,
        "validation_loss_start": start_loss if len(validation) else None,
        "validation_loss_end": final_loss,
        **_speed(events_path),
        **trainable_figures(model),
        "compute_dtype": str(dtype).removeprefix("torch."),
        "device": str(device),
    }


def _printer() -> type[TrainerCallback]:
    from transformers import PrinterCallback

    return PrinterCallback


def _last_good(checkpoints: Path) -> str:
    from llmkit.training.checkpoints import last_whole

    good = last_whole(checkpoints)
    kept = f"The last good checkpoint is {good}." if good else "No checkpoint had been written yet."
    return f"{kept} Try a lower training.learning_rate, or a warm-up: training.warmup_steps."


def _speed(events_path: Path) -> dict[str, Any]:
    steps = [event for event in read_events(events_path) if event["event"] == "step"]
    timed = steps[2:] or steps  # the first steps warm caches up
    return {
        "loss_first": steps[0]["loss"],
        "loss_last": steps[-1]["loss"],
        "tokens": sum(step["tokens"] for step in steps),
        "tokens_per_second": round(
            sum(step["tokens"] for step in timed) / sum(step["seconds"] for step in timed), 1
        ),
        "peak_memory_mib": max(step["memory_mib"] for step in steps),
    }
