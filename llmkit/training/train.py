"""Train a model on a prepared data set, by any method."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from data_prep.prepared import PreparedDataset
from llmkit.errors import UsageError
from llmkit.models import trained
from llmkit.models.adapters import base_of
from llmkit.models.loading import choose_device, compute_dtype, load_base, load_scorer, quiet
from llmkit.models.settings import ModelConfig
from llmkit.models.trained import TrainedModel
from llmkit.training import processes
from llmkit.training.batching import Sequence, Sequences, collate
from llmkit.training.checkpoints import all_checkpoints, goes_on_from, is_whole, step_of
from llmkit.training.distillation import Distillation, load_teacher
from llmkit.training.divergence import with_next_step
from llmkit.training.embedding_noise import EmbeddingNoise
from llmkit.training.events import Events, NoEvents, read_events, until
from llmkit.training.figures import told_by
from llmkit.training.isolation import (
    check_loss_is_the_models_own,
    check_rows_are_apart,
    check_scores_are_the_rows_own,
)
from llmkit.training.kernels.choice import Choice, use_kernels
from llmkit.training.objective import Objective, accept_objectives
from llmkit.training.objectives import REFERENCED, objective_for, refuse_other_rows
from llmkit.training.progress import Best, Diverged, Guard, Meter, TrainingView
from llmkit.training.reference import with_references
from llmkit.training.settings import TrainingConfig
from llmkit.training.step_count import Plan, plan_steps
from llmkit.training.token_checks import (
    refuse_ids_without_embedding,
    refuse_rows_that_move_others,
    tokens_to_learn,
)
from llmkit.training.trackers import tracking
from llmkit.training.trainer import ObjectiveTrainer, Running, Watch, measure
from llmkit.training.trainer_arguments import arguments, refuse_what_cannot_run

START_SAMPLE = 4
"""Sequences that the loss at the start is measured on when nothing is held out."""


@dataclass(frozen=True)
class Places:
    """Where a training reads and leaves things."""

    model: Path
    """The base model's folder."""
    checkpoints: Path
    events: Path
    """One line a step."""
    result: Path
    """An empty folder for what was trained."""
    teacher: Path | None = None
    """The folder of the model that is distilled."""


def train(
    config: TrainingConfig,
    model_config: ModelConfig,
    prepared: PreparedDataset,
    places: Places,
    view: TrainingView,
    *,
    resume_from: Path | None,
) -> dict[str, Any]:
    """Train on a prepared data set, alone or as one of several processes.

    Args:
        config: how.
        model_config: quantisation and device; its ``base`` names the model in what is left.
        prepared: packed sequences.
        places: folders and files.
        view: where a person watches.
        resume_from: a whole checkpoint of this very training, or None.

    Returns:
        Figures: steps, losses, tokens per second, memory, what trained. Only the first of several
        processes writes, and has figures of speed.

    Raises:
        Diverged: the loss became NaN, stayed above its start, or ended there; the last good
            checkpoint is kept.
        UsageError: settings and model or data do not fit.
        CheckFailed: rows of a pack see each other on this model, or it computes something that
            our loss leaves out.
    """
    quiet()
    data = _load_data(prepared)
    for split in (data.train, data.validation):
        refuse_other_rows(config.method, split)
    plan = _plan(config, data, view)
    device = _own_device(model_config)
    refuse_what_cannot_run(config, device)
    dtype = compute_dtype(device)
    view.say(f"loading {model_config.name} ({model_config.quantization}, {device}, {dtype})")
    resumed = resume_from is not None
    ready = _make_ready(config, model_config, data, places, device, dtype, resumed=resumed)
    objective = _objective(config, places, data, device, dtype, view)
    if config.method in REFERENCED:
        view.say("reference log-probabilities of every row")
        data = _with_references(data, ready.model, places, dtype, resumed=resumed)
    start = measure(ready.model, objective, data.watched, dtype)
    run = _begin(config, ready.model, objective, data, start, places, view, dtype, resume_from)
    steps, end_loss = _run_or_say_why(config, plan, data, places, run, resume_from, device)
    gathered = processes.gathered(ready.model)
    if processes.is_first():
        trained.save(ready.model, places.result, model_config.name, places.checkpoints, gathered)
    return {
        "steps": steps,
        "sequences": plan.sequences,
        "isolation": ready.isolation,
        "kernels": [asdict(each) for each in ready.kernels],
        "validation_loss_start": start["loss"] if len(data.validation) else None,
        "validation_loss_end": end_loss,
        "kept_step": run.best.step if config.keep == "best" else steps,
        "processes": processes.count(),
        **(told_by(read_events(places.events)) if processes.is_first() else {}),
        **trained.figures(ready.model),
        "compute_dtype": str(dtype).removeprefix("torch."),
        "device": device.type,
    }


@dataclass(frozen=True)
class _Data:
    """The sequences of a training."""

    train: Sequences
    validation: Sequences
    watched: Sequences | list[Sequence]
    """What the loss before and after is measured on."""


def _load_data(prepared: PreparedDataset) -> _Data:
    train = Sequences(prepared.sequences("train"))
    validation = Sequences(prepared.sequences("validation"))
    return _watching(train, validation)


def _watching(train: Sequences, validation: Sequences) -> _Data:
    few = [train[index] for index in range(min(START_SAMPLE, len(train)))]
    return _Data(train, validation, validation if len(validation) else few)


def _objective(
    config: TrainingConfig,
    places: Places,
    data: _Data,
    device: torch.device,
    dtype: torch.dtype,
    view: TrainingView,
) -> Objective:
    """What the method makes smaller, with the teacher loaded where there is one."""
    if not (config.distillation and places.teacher):
        return objective_for(config)
    view.say(f"loading {config.distillation.teacher}, the teacher")
    teacher = load_teacher(places.teacher, data.train, device, dtype)
    return Distillation(config.distillation, teacher)


def _plan(config: TrainingConfig, data: _Data, view: TrainingView) -> Plan:
    """How many steps there are; says so where one has less than it was meant to."""
    plan = plan_steps(config, len(data.train), processes.count())
    asked = config.batch.rows * config.batch.accumulate * processes.count()
    if asked > plan.sequences:
        view.say(
            f"a step would take {asked} sequences, and there are {plan.sequences}: it takes all"
        )
    return plan


def _own_device(model_config: ModelConfig) -> torch.device:
    """The device of this process; of several, each has a GPU of its own."""
    device = choose_device(model_config.device)
    if device.type == "cuda" and processes.count() > 1:
        return torch.device("cuda", processes.local_rank())
    return device


@dataclass(frozen=True)
class _Ready:
    """A model that passed its checks and computes in the forms that it trains in."""

    model: TrainedModel
    isolation: dict[str, Any]
    """Figures of the checks."""
    kernels: list[Choice]


def _make_ready(
    config: TrainingConfig,
    model_config: ModelConfig,
    data: _Data,
    places: Places,
    device: torch.device,
    dtype: torch.dtype,
    *,
    resumed: bool,
) -> _Ready:
    model = _load_model(config, model_config, data, places, device, dtype)
    isolation = _checked(base_of(model), config, data.train, dtype)  # before layers are replaced
    middle = len(data.train) // 2
    kernels = use_kernels(
        model,
        config.kernels,
        dtype=dtype,
        tokens=min(config.batch.rows, len(data.train)) * len(data.train[middle].input_ids),
        folder=places.checkpoints,
        resumed=resumed,
    )
    accept_objectives(base_of(model))
    return _Ready(model, isolation, kernels)


def _begin(
    config: TrainingConfig,
    model: TrainedModel,
    objective: Objective,
    data: _Data,
    start: dict[str, float],
    places: Places,
    view: TrainingView,
    dtype: torch.dtype,
    resume_from: Path | None,
) -> Running:
    """What watches the steps, with what those before a resumed training's own had shown."""
    done = step_of(resume_from) if resume_from else 0
    earlier = processes.from_first(read_events(places.events) if resume_from else [])
    before = until(earlier, done)  # what came after it comes once more
    events: Events | NoEvents = Events(places.events, done) if processes.is_first() else NoEvents()
    run = Running(
        model,
        objective,
        data.validation,
        Meter(),
        Guard(start["loss"], config.patience, before),
        Best(config.early_stopping, before),
        events,
        view,
        dtype,
        told={(event["event"], event["step"]) for event in earlier},
    )
    if not resume_from and len(data.validation):
        run.report(0, start)
    run.recall(before, done)
    return run


def _with_references(
    data: _Data, model: TrainedModel, places: Places, dtype: torch.dtype, *, resumed: bool
) -> _Data:
    splits = {"train": data.train, "validation": data.validation}
    base = base_of(model)
    found = with_references(base, splits, places.checkpoints, dtype, resumed=resumed)
    return _watching(**found)


def _load_model(
    config: TrainingConfig,
    model_config: ModelConfig,
    data: _Data,
    places: Places,
    device: torch.device,
    dtype: torch.dtype,
) -> TrainedModel:
    """The model with what trains chosen."""
    new_tokens = tokens_to_learn(config, places.model, data.train)
    quantization = model_config.quantization
    held = trained.base_dtype(config.adapter, quantization, dtype, places.model)
    if config.method == "reward":
        base = load_scorer(
            places.model, quantization=quantization, device=device, dtype=held, seed=config.seed
        )
    else:
        base = load_base(places.model, quantization=quantization, device=device, dtype=held)
    refuse_ids_without_embedding(base, data.train)
    refuse_rows_that_move_others(base, data.train, config.batch.rows)
    if config.gradient_checkpointing:
        base.enable_input_require_grads()  # or checkpointed layers on a frozen base learn nothing
    return trained.make_trainable(
        base, config.adapter, config.seed, new_tokens, dtype=dtype, initial=places.checkpoints
    )


def _checked(
    base: PreTrainedModel, config: TrainingConfig, sequences: Sequences, dtype: torch.dtype
) -> dict[str, Any]:
    """The figures of the checks that a model passed before it is trained."""
    if config.method == "reward":
        return check_scores_are_the_rows_own(base, sequences, dtype)
    found = check_loss_is_the_models_own(base, sequences, dtype)
    if config.batch.rows > 1 or any(len(s.row_lengths) > 1 for s in sequences):
        found |= check_rows_are_apart(base, sequences, dtype)
    return found


def _run_or_say_why(
    config: TrainingConfig,
    plan: Plan,
    data: _Data,
    places: Places,
    run: Running,
    resume_from: Path | None,
    device: torch.device,
) -> tuple[int, float | None]:
    """`_run` with trackers; where it ends early, it is said from where one can go on."""
    try:
        fresh = not resume_from and processes.is_first()
        with tracking(config.trackers, places.checkpoints.parent, fresh=fresh):
            return _run(config, plan, data, places, run, resume_from, device)
    except Diverged as error:
        raise with_next_step(error, config, places.checkpoints, run.guard) from None
    except KeyboardInterrupt:
        run.view.say(f"interrupted. {goes_on_from(places.checkpoints)}")
        raise
    finally:
        run.events.close()


def _run(
    config: TrainingConfig,
    plan: Plan,
    data: _Data,
    places: Places,
    run: Running,
    resume_from: Path | None,
    device: torch.device,
) -> tuple[int, float | None]:
    """Take the steps; returns how many they were, and the validation loss of what is kept."""
    noise = config.neftune_alpha and EmbeddingNoise(base_of(run.model), config.neftune_alpha)
    trainer = ObjectiveTrainer(
        config=config,
        run=run,
        noise=noise or None,
        args=arguments(config, plan, places.checkpoints, device, run.dtype),
        train_dataset=data.train,
        data_collator=collate,
        callbacks=[Watch(config, plan, run)],
    )
    if processes.rank():  # the others' noise and dropout would be copies of the first's
        torch.manual_seed(config.seed + processes.rank())
    steps = step_of(resume_from) if resume_from else 0
    run.meter.close()
    if resume_from:
        run.view.say(f"resuming after step {steps}")
    if resume_from and (steps >= plan.steps or run.best.exhausted):
        trainer._load_from_checkpoint(str(resume_from))  # the Trainer would do one step more
    else:
        run.tell = trainer.tell
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
        steps = trainer.state.global_step
    end_loss = run.validate(steps)
    if config.keep == "best" and run.best.step not in (None, steps):
        trainer._load_from_checkpoint(str(_best_checkpoint(places.checkpoints, run.best)))
        run.view.say(f"keeping the weights of step {run.best.step}, the best evaluation")
        end_loss = run.best.loss
    if end_loss is None:
        end = measure(run.model, run.objective, data.watched, run.dtype)["loss"]
        run.guard.check_end(end, steps)
    else:
        run.guard.check_end(end_loss, steps)
    run.tidy(places.checkpoints, config)
    return steps, end_loss


def _best_checkpoint(checkpoints: Path, best: Best) -> Path:
    found = {step_of(path): path for path in all_checkpoints(checkpoints)}
    path = found.get(best.step or 0)
    if path is None or not is_whole(path):
        raise UsageError(
            f"{checkpoints}: the checkpoint of step {best.step}, the best evaluation, is gone or "
            "broken. Say training.keep=last for the weights after the last step, or remove the "
            "folder and train again."
        )
    return path
