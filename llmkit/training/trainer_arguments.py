"""Our settings as the transformers Trainer spells them."""

from pathlib import Path

import torch
from transformers import TrainingArguments

from llmkit.errors import UsageError
from llmkit.training.settings import TrainingConfig
from llmkit.training.step_count import Plan
from llmkit.training.trackers import PROJECT, refuse_missing

SCHEDULES = {
    "cosine": "cosine",
    "linear": "linear",
    "constant": "constant_with_warmup",  # "constant" would leave the warm-up out
}
OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw": "paged_adamw_32bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "lion": "lion_32bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
}
CUDA_ALONE = ("paged_adamw", "paged_adamw_8bit")


def refuse_what_cannot_run(config: TrainingConfig, device: torch.device) -> None:
    """Look at what only fails once training has begun.

    Raises:
        UsageError: an optimiser needs CUDA, or a tracker's package is not installed.
    """
    if config.optimizer in CUDA_ALONE and device.type != "cuda":
        raise UsageError(
            f"training.optimizer: {config.optimizer} keeps its moments in pages that CUDA moves, "
            f"and this trains on {device}. Use adamw, adamw_8bit, lion, adafactor or sgd."
        )
    refuse_missing(config.trackers)


def arguments(
    config: TrainingConfig, plan: Plan, folder: Path, device: torch.device, dtype: torch.dtype
) -> TrainingArguments:
    """The Trainer's arguments; it neither logs to files nor saves on its own."""
    found = TrainingArguments(
        output_dir=str(folder),
        max_steps=plan.steps,
        per_device_train_batch_size=config.batch.rows,
        gradient_accumulation_steps=config.batch.accumulate,
        learning_rate=config.learning_rate,
        lr_scheduler_type=SCHEDULES[config.schedule],
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim=OPTIMIZERS[config.optimizer],
        fp16=dtype == torch.float16,
        gradient_checkpointing=bool(config.gradient_checkpointing),
        gradient_checkpointing_kwargs={"use_reentrant": False},
        seed=config.seed,
        data_seed=config.seed,
        use_cpu=device.type == "cpu",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        save_total_limit=None,
        report_to=list(config.trackers),
        run_name=folder.absolute().parent.name,
        project=PROJECT,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=device.type == "cuda",
    )
    # With several GPUs the Trainer would split batches over all of them, and so multiply both the
    # batch and the epochs.
    found._n_gpu = min(found.n_gpu, 1)
    return found
