"""The transformers Trainer with our loss, our events, and our say about checkpoints."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from llmkit.models.adapters import base_of
from llmkit.models.loading import computing_in
from llmkit.training.batching import Sequence, Sequences, collate, to_device
from llmkit.training.checkpoints import keep_newest, mark_whole
from llmkit.training.loss import supervised_loss
from llmkit.training.planning import Plan
from llmkit.training.progress import Events, Guard, Meter, TrainingView, memory_mib
from llmkit.training.settings import TrainingConfig


class SupervisedTrainer(Trainer):
    """The transformers Trainer, computing logits only where a token is supervised."""

    def __init__(self, *, meter: Meter, guard: Guard, dtype: torch.dtype, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.remove_callback(PrinterCallback)
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


class Watch(TrainerCallback):
    """Writes events, draws progress, decides about checkpoints, and stops what diverges."""

    def __init__(
        self,
        config: TrainingConfig,
        plan: Plan,
        run: "Running",
        events: Events,
        view: TrainingView,
    ) -> None:
        self.config = config
        self.plan = plan
        self.run = run
        self.events = events
        self.view = view
        self.last: dict[str, Any] = {}

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock after whatever was validated or saved."""
        self.run.meter.restart()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Close the step; save only while the loss is where it should be."""
        self.last = self.run.meter.close()
        self.run.guard.check(self.last["loss"], state.global_step)
        due = state.global_step % self.plan.checkpoint_every == 0
        is_last = state.global_step >= self.plan.steps
        control.should_save = (due or is_last) and self.run.guard.streak == 0
        if control.should_save:
            self.run.guard.check_weights(self.run.model, state.global_step)
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
class Running:
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


_SCHEDULES = {
    "cosine": "cosine",
    "linear": "linear",
    "constant": "constant_with_warmup",  # "constant" would leave the warm-up out
}


def arguments(
    config: TrainingConfig, plan: Plan, folder: Path, device: torch.device, dtype: torch.dtype
) -> TrainingArguments:
    """Our settings as the Trainer spells them; it neither logs nor saves on its own."""
    found = TrainingArguments(
        output_dir=str(folder),
        max_steps=plan.steps,
        per_device_train_batch_size=config.batch.rows,
        gradient_accumulation_steps=config.batch.accumulate,
        learning_rate=config.learning_rate,
        lr_scheduler_type=_SCHEDULES[config.schedule],
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
    # With several GPUs the Trainer would split batches over all of them, and so multiply both the
    # batch and the epochs.
    found._n_gpu = min(found.n_gpu, 1)
    return found
