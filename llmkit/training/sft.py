"""Supervised fine-tuning of an adapter on a prepared data set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from data_prep.prepared import PreparedDataset
from llmkit.errors import UsageError
from llmkit.models.adapters import attach, base_of, save, trainable_figures
from llmkit.models.loading import choose_device, compute_dtype, load_base, quiet
from llmkit.models.settings import ModelConfig
from llmkit.models.vocabulary import read_extension
from llmkit.training.batching import Sequence, Sequences, collate
from llmkit.training.checkpoints import last_whole, step_of
from llmkit.training.isolation import check_loss_is_the_models_own, check_rows_are_apart
from llmkit.training.planning import plan_steps
from llmkit.training.progress import Diverged, Events, Guard, Meter, TrainingView, read_events
from llmkit.training.settings import TrainingConfig
from llmkit.training.trainer import Running, SupervisedTrainer, Watch, arguments, mean_loss

START_SAMPLE = 4
"""Sequences that the loss at the start is measured on when nothing is held out."""


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
        CheckFailed: rows of a pack see each other on this model, or it computes something that
            our loss leaves out.
    """
    data = _load_data(prepared)
    _refuse_untrained_tokens(model_folder, data.train)
    plan = plan_steps(config, len(data.train))
    device = choose_device(model_config.device)
    dtype = compute_dtype(device)
    quiet()
    view.say(f"loading {model_config.base} ({model_config.quantization}, {device}, {dtype})")
    base = load_base(model_folder, quantization=model_config.quantization, device=device)
    _refuse_ids_without_embedding(base, data.train)
    model = attach(base, config.adapter, config.seed)
    isolation = check_loss_is_the_models_own(base_of(model), data.train, dtype)
    if config.batch.rows > 1 or any(len(s.row_lengths) > 1 for s in data.train):
        isolation |= check_rows_are_apart(base_of(model), data.train, dtype)

    start_loss = mean_loss(model, data.watched, dtype)
    events = Events(events_path, step_of(resume_from) if resume_from else 0)
    meter, guard = Meter(), Guard(start_loss, config.patience)
    running = Running(model, data.validation, meter, guard, events, view, dtype)
    if not resume_from and len(data.validation):
        events.write({"event": "validation", "step": 0, "loss": start_loss})
        view.say(f"step 0: validation loss {start_loss:.4f}")
    trainer = SupervisedTrainer(
        meter=meter,
        guard=guard,
        dtype=dtype,
        model=model,
        args=arguments(config, plan, checkpoints, device, dtype),
        train_dataset=data.train,
        data_collator=collate,
        callbacks=[Watch(config, plan, running, events, view)],
    )
    if resume_from:
        view.say(f"resuming after step {step_of(resume_from)}")
    try:
        meter.close()
        if resume_from and step_of(resume_from) >= plan.steps:  # the Trainer would do one more
            trainer._load_from_checkpoint(str(resume_from))
        else:
            trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
        end_loss = running.validate(plan.steps)
        watched_loss = mean_loss(model, data.watched, dtype) if end_loss is None else end_loss
        guard.check_end(watched_loss, plan.steps)
    except Diverged as error:
        raise Diverged(f"{error}\n{_last_good(checkpoints)}") from None
    finally:
        events.close()
    save(model, adapter, model_config.base)
    return {
        "steps": plan.steps,
        "sequences": plan.sequences,
        "isolation": isolation,
        "validation_loss_start": start_loss if len(data.validation) else None,
        "validation_loss_end": end_loss,
        **_speed(events_path),
        **trainable_figures(model),
        "compute_dtype": str(dtype).removeprefix("torch."),
        "device": str(device),
    }


@dataclass(frozen=True)
class _Data:
    """The sequences of a training."""

    train: Sequences
    validation: Sequences
    watched: list[Sequence]
    """What the loss before and after is measured on."""


def _load_data(prepared: PreparedDataset) -> _Data:
    train = Sequences(prepared.sequences("train"))
    validation = Sequences(prepared.sequences("validation"))
    few = [train[index] for index in range(min(START_SAMPLE, len(train)))]
    return _Data(train, validation, list(validation) or few)


def _refuse_ids_without_embedding(base: PreTrainedModel, sequences: Sequences) -> None:
    rows = len(base.get_input_embeddings().weight)  # type: ignore[arg-type]
    largest = max(int(sequence.input_ids.max()) for sequence in sequences)
    if largest >= rows:
        raise UsageError(
            f"the data has token id {largest}, but the model has embeddings for 0 to {rows - 1}: "
            "its tokenizer or chat template uses tokens that were added without enlarging the "
            "model. Choose a template of tokens that the model knows: model.chat_template."
        )


def _refuse_untrained_tokens(model_folder: Path, sequences: Sequences) -> None:
    """Under an adapter the rows of new tokens would stay the means they were made as."""
    extension = read_extension(model_folder)
    if extension is None:
        return
    added = {row.id: row.token for row in extension.added}
    used = sorted({index for each in sequences for index in each.input_ids} & added.keys())
    if used:
        named = ", ".join(repr(added[index]) for index in used[:5])
        raise UsageError(
            f"{model_folder}: the data uses {len(used)} of the {len(added)} tokens that were added "
            f"to this model ({named}, ...). An adapter does not train their embeddings: they would "
            "stay the mean of their pieces. Train the model as it was before it was extended: "
            "model.base."
        )


def _last_good(checkpoints: Path) -> str:
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
