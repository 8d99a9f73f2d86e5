"""The transformers Trainer with our objectives, our events, and our say about checkpoints."""

from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.optimizers import create_loraplus_optimizer
from torch import nn
from torch.autograd.graph import save_on_cpu
from transformers import PrinterCallback, Trainer, TrainerCallback

from llmkit.models.loading import computing_in
from llmkit.training import processes
from llmkit.training.batching import Sequence, Sequences, collate, to_device
from llmkit.training.checkpoints import keep_newest, last_good, mark_whole, step_of
from llmkit.training.embedding_noise import EmbeddingNoise
from llmkit.training.events import Events, NoEvents
from llmkit.training.objective import Objective, add_counts, counted, looked_ahead, step_loss
from llmkit.training.progress import Best, Guard, Meter, TrainingView, memory_mib
from llmkit.training.settings import LoraAdapter, TrainingConfig
from llmkit.training.shares import Share, ShareLoader
from llmkit.training.step_count import Plan
from llmkit.training.trackers import Tell, validation_figures


class ObjectiveTrainer(Trainer):
    """The transformers Trainer, making one objective smaller."""

    def __init__(
        self,
        *,
        config: TrainingConfig,
        run: "Running",
        noise: EmbeddingNoise | None,
        **arguments: Any,
    ) -> None:
        super().__init__(model=run.model, **arguments)
        self.remove_callback(PrinterCallback)
        self.config = config
        self.running = run
        self.wanted = run.objective
        self.noise = noise
        self.dtype = run.dtype
        self.model_accepts_loss_kwargs = True  # our loss is already the mean over the whole step

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: FBT001, FBT002 (the Trainer's signature)
        num_items_in_batch: Any = None,
    ) -> Any:
        """A batch's part of the loss of the whole optimiser step.

        Gradients are averaged over processes, by whatever shares the model out, while the parts of
        all processes add up to the loss: so each is given times the number of processes.
        """
        del return_outputs
        if num_items_in_batch is None:
            raise RuntimeError("the Trainer did not count what an optimiser step is averaged over")
        if self.noise:
            self.noise.row_starts = inputs["row_starts"]
        offload = self.config.gradient_checkpointing == "offload"
        saving = save_on_cpu(self.args.device.type == "cuda") if offload else nullcontext()
        with computing_in(self.dtype, self.args.device), saving:
            loss = step_loss(model, self.wanted, inputs, num_items_in_batch)
        counts, tokens = counted(self.wanted, inputs), inputs["input_ids"].numel()
        self.running.meter.add(loss, counts, tokens, counted=inputs["counted"])
        # What is not counted has its backward pass all the same, or the others would wait for it.
        return loss.value * (processes.count() if inputs["counted"] else 0)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """A batch on the device.

        The Trainer's own waits, for every tensor, until the GPU has done all that came before.
        """
        return to_device(inputs, self.args.device)

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, Any]], device: torch.device
    ) -> Any:
        """What all forward passes of one step have, on all processes.

        The Trainer's own counts labels, which our batches have not.
        """
        counts = processes.total(add_counts([counted(self.wanted, each) for each in batch_samples]))
        with computing_in(self.dtype, device):
            return counts | looked_ahead(self.model_wrapped, self.wanted, batch_samples, device)

    def get_train_dataloader(self) -> ShareLoader:
        """This process's share of every step; see `shares` for why not accelerate's."""
        sequences: Any = self.train_dataset
        together: Any = self.data_collator
        rows, seed = self.config.batch.rows, self.config.seed
        share = Share(len(sequences), rows, seed, processes.rank(), processes.count())
        pin = self.args.dataloader_pin_memory
        return ShareLoader(sequences, share, together, pin_memory=pin)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The Trainer's optimiser; with LoRA+, B learns faster than A."""
        adapter = self.config.adapter
        if self.optimizer is None and isinstance(adapter, LoraAdapter) and adapter.lora_plus:
            tuned: Any = self.model
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args, tuned)
            self.optimizer = create_loraplus_optimizer(
                tuned,
                kind,
                lr=settings.pop("lr"),
                loraplus_lr_ratio=adapter.lora_plus,
                loraplus_weight_decay=self.args.weight_decay,
                loraplus_lr_embedding=self.args.learning_rate,
                **settings,
            )
        return super().create_optimizer(model)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Tell trackers, then ``events.jsonl`` and the view, of a step, or of how it all ended.

        Steps that come once more, because the training was killed after its last checkpoint, were
        told of before.
        """
        if "learning_rate" not in logs:
            super().log(logs, start_time)
            return
        if ("step", self.state.global_step) not in self.running.told:
            super().log(logs | self.running.meter.last, start_time)
        self.running.report_step(
            self.state.global_step,
            self.state.max_steps,
            learning_rate=logs["learning_rate"],
            gradient_norm=float(logs.get("grad_norm", 0.0)),
        )

    def tell(self, figures: Mapping[str, float]) -> None:
        """Pass other figures on to the trackers; `log` would take the step's turn."""
        self.callback_handler.call_event(
            "on_log", self.args, self.state, self.control, logs=dict(figures)
        )

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        processes.wait()  # each has written files of its own: its random numbers
        if processes.is_first():
            mark_whole(Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}")


class Watch(TrainerCallback):
    """Writes events, draws progress, decides about checkpoints, and stops what diverges."""

    def __init__(self, config: TrainingConfig, plan: Plan, run: "Running") -> None:
        self.config = config
        self.plan = plan
        self.run = run
        self.owed = False
        """Whether a checkpoint was due and is not written yet."""
        self.saved: int | None = None
        """The step after which the newest checkpoint was written."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell trackers, which are ready only now, of the validation before the first step."""
        if not state.global_step and self.run.validated:
            self.run.tell(validation_figures(self.run.validated[1]))

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock after whatever was validated or saved."""
        self.run.meter.restart()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Close the step; save only while the loss is where it should be.

        A checkpoint that is due while it is not follows at the first step where it is: where a step
        is few pairs, single losses above the start are nothing unusual.
        """
        step, run = state.global_step, self.run
        closed = run.meter.close()
        run.guard.check(closed["loss"], step)
        if self.saved == step - 1:  # seen to be good, it takes the place of an older one that was
            run.tidy(Path(args.output_dir), self.config)
        is_last = step >= self.plan.steps
        self.owed |= is_last or step % self.plan.checkpoint_every == 0
        control.should_save = self.owed and run.guard.streak == 0
        evaluated = bool(self.config.evaluate_every) and step % self.config.evaluate_every == 0
        if is_last or evaluated:
            run.validate(step)  # now: trackers are closed when training has ended
            control.should_save |= self.config.keep == "best" and run.best.step == step
        if evaluated and not is_last and run.best.exhausted:
            run.view.say(f"stopping after step {step}: evaluations are no longer better")
            control.should_training_stop = control.should_save = True
        if control.should_save:
            run.guard.check_weights(run.model, step)
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Older checkpoints go only after the new one is whole."""
        self.owed = False
        self.saved = state.global_step
        self.run.tidy(Path(args.output_dir), self.config)


@dataclass
class Running:
    """What the Trainer, its callback and `train` share."""

    model: nn.Module
    objective: Objective
    validation: Sequences
    meter: Meter
    guard: Guard
    best: Best
    events: Events | NoEvents
    view: TrainingView
    dtype: torch.dtype
    tell: Tell = lambda _figures: None
    """Tells the trackers."""
    told: Set[tuple[str, int]] = frozenset()
    """Kinds and steps of the events that trackers were told of before this process."""
    validated: tuple[int, dict[str, float]] | None = None
    """The step and the figures of the last validation."""

    def validate(self, step: int) -> float | None:
        """Measure and report the validation loss, once a step; None when nothing is held out."""
        if not len(self.validation):
            return None
        if self.validated and self.validated[0] == step:
            return self.validated[1]["loss"]
        self.report(step, measure(self.model, self.objective, self.validation, self.dtype))
        return self.validated[1]["loss"] if self.validated else None

    def recall(self, before: Iterable[Mapping[str, Any]], step: int) -> None:
        """Take over what a validation after this step found, if an earlier process made it."""
        for event in before:
            if event["event"] == "validation" and event["step"] == step > 0:
                found = {n: value for n, value in event.items() if n not in ("event", "step")}
                self.validated = step, found

    def report(self, step: int, found: dict[str, float]) -> None:
        """Say and keep what a validation found."""
        if ("validation", step) not in self.told:
            self.tell(validation_figures(found))
        self.events.write({"event": "validation", "step": step, **found})
        self.view.say(f"step {step}: validation {spelled(found)}")
        self.validated = step, found
        if step:
            self.best.see(step, found["loss"])
            self.guard.see_validation(found["loss"], step)

    def tidy(self, checkpoints: Path, config: TrainingConfig) -> None:
        """Remove older checkpoints, not the best nor the last one whose loss was seen to be good.

        What a step did to the loss shows in the next one only, or in a validation: the newest
        checkpoint may be the first of a model that is destroyed.
        """
        if not processes.is_first():
            return
        good = last_good(checkpoints, self.guard.is_good)
        besides = {step_of(good)} if good else set()
        if config.keep == "best" and self.best.step:
            besides.add(self.best.step)
        keep_newest(checkpoints, config.keep_checkpoints, besides)

    def report_step(self, step: int, steps: int, **figures: float) -> None:
        """Say and keep what a step came to, with what the Trainer knows of it."""
        event = {
            "event": "step",
            "step": step,
            **self.meter.last,
            **figures,
            "memory_mib": int(processes.largest(memory_mib())),
        }
        self.events.write(event)
        self.view.step(event, steps)


def spelled(figures: Mapping[str, float]) -> str:
    """Figures for a person: ``loss 1.2345, accuracy 0.7500``."""
    return ", ".join(f"{name} {value:.4f}" for name, value in figures.items())


class _OneByOne:
    """This process's share of sequences as batches of one, made anew whenever they are gone over.

    All of them at once would be many times the sequences, which are views of a file.
    """

    def __init__(self, sequences: Sequences | list[Sequence]) -> None:
        self._sequences = sequences

    def __iter__(self) -> Iterator[dict[str, Any]]:
        whole, together = len(self._sequences), processes.count()
        for turn in range(processes.rank(), whole + -whole % together, together):
            mine = turn < whole
            yield {**collate([self._sequences[turn if mine else 0]]), "counted": mine}


@torch.no_grad()
def measure(
    model: nn.Module,
    objective: Objective,
    sequences: Sequences | list[Sequence],
    dtype: torch.dtype,
) -> dict[str, float]:
    """The objective and its figures over sequences, one at a time, without training.

    Processes share the sequences out. One that has none left runs the first once more, uncounted:
    where weights are spread over processes, all must take part in every forward pass.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    batches = _OneByOne(sequences)
    totals = processes.total(add_counts([counted(objective, batch) for batch in batches]))
    with computing_in(dtype, device):
        totals |= looked_ahead(model, objective, batches, device)
    sums: dict[str, Any] = {}  # on the device: reading one for each batch would wait for the GPU
    for batch in batches:
        with computing_in(dtype, device):
            loss = step_loss(model, objective, to_device(batch, device), totals)
        for name, part in {"loss": loss.value, **loss.figures}.items():
            sums[name] = sums.get(name, 0.0) + part.double() * batch["counted"]
    model.train(was_training)
    return processes.total({name: float(total) for name, total in sums.items()})
