"""What each process of benchmarks/train_gpu.py does: make what is trained, or train on one side.

Both sides load one model folder, quantise it to NF4 with double quantisation, and train LoRA on all
linear layers on the same rows once. A step is timed from log to log, with the device waited for, in
the same way on both sides.
"""

import json
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from random_model import SHAPES, tokenizer, training_flops, write_model
from random_rows import RandomRows, draw, write_prepared

WARM_UP = 2
"""Steps before the clock starts."""
OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
}
"""llmkit's names, and the Trainer's."""
ALPHA = 16
PRODUCT = {"cuda": 8192, "cpu": 512}
"""Rows and columns of the matrices whose product is timed."""


@dataclass(frozen=True)
class Job:
    """What is trained, the same on every side."""

    shape: str
    """A name in `SHAPES`."""
    folder: Path
    """Holds the model folder and the packs."""
    scratch: Path
    """Empty; for what training leaves."""
    batch: int
    """Packs in a forward pass."""
    accumulate: int
    steps: int
    checkpointing: bool
    optimizer: str
    trl_attention: str
    limit_gib: float | None
    """The memory that a smaller card would have."""
    seed: int

    @staticmethod
    def read(text: str) -> "Job":
        """From JSON."""
        values = json.loads(text)
        places = {name: Path(values[name]) for name in ("folder", "scratch")}
        return Job(**{**values, **places})

    @property
    def model(self) -> Path:
        """The model folder."""
        return self.folder / f"model-{self.shape}"

    def rows(self) -> RandomRows:
        """Its rows: as many as fill the packs of all steps."""
        shape = SHAPES[self.shape]
        packs = self.steps * self.batch * self.accumulate
        return draw(shape.vocabulary, shape.tokens, packs, self.seed)


class Clock:
    """Time and peak memory of the steps after the warm-up, and of the whole process."""

    def __init__(self, job: Job) -> None:
        self._cuda = torch.cuda.is_available()
        self._began = self._ended = 0.0
        self._before = (0, 0)
        if job.limit_gib and self._cuda:
            whole = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, job.limit_gib * 2**30 / whole))

    def step(self, number: int) -> None:
        """An optimiser step is done, and its loss known."""
        if self._cuda:
            torch.cuda.synchronize()
        self._ended = time.perf_counter()
        if number == WARM_UP:
            if self._cuda:
                self._before = self._peaks()
                torch.cuda.reset_peak_memory_stats()
            self._began = time.perf_counter()

    def figures(self, tokens: list[int]) -> dict[str, Any]:
        """Tokens a second and peaks.

        Args:
            tokens: those of every step, padding left out.
        """
        found: dict[str, Any] = {
            "tokens": sum(tokens),
            "tokens_per_second": sum(tokens[WARM_UP:]) / (self._ended - self._began),
        }
        if not self._cuda:
            resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            return found | {"peak_gib": round(resident, 3)}
        steps, whole = self._peaks(), map(max, self._before, self._peaks())
        names = ("peak_gib", "peak_reserved_gib")
        found |= {name: round(peak / 2**30, 3) for name, peak in zip(names, whole, strict=True)}
        return found | {"peak_gib_of_steps": round(steps[0] / 2**30, 3)}

    def _peaks(self) -> tuple[int, int]:
        return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()


def made(job: Job) -> dict[str, Any]:
    """Write the model and the packs, and measure the device's matrix products."""
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    shape, rows = SHAPES[job.shape], job.rows()
    write_model(shape, job.model, torch.device(kind), job.seed)
    write_prepared(rows, job.folder / "data")
    return {
        "device": torch.cuda.get_device_name() if kind == "cuda" else "cpu",
        "matmul_tflops": round(matmul_rate(torch.device(kind)) / 1e12, 3),
        "rows": len(rows.lengths),
        "packs": len(rows.packs),
        "tokens": int(rows.lengths.sum()),
        "flops_a_token": training_flops(shape, rows.lengths, int(rows.supervised.sum()))
        / int(rows.lengths.sum()),
    }


def matmul_rate(device: torch.device) -> float:
    """Floating-point operations a second of a large bfloat16 product: the median of ten."""
    size = PRODUCT[device.type]
    left, right = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    seconds = []
    for _ in range(13):
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / statistics.median(seconds[3:])


def ours(job: Job) -> dict[str, Any]:
    """Train with llmkit, by the function that `llmkit train` calls."""
    from data_prep.prepared import PreparedDataset
    from llmkit.models.settings import ModelConfig
    from llmkit.training.events import read_events
    from llmkit.training.settings import TrainingConfig
    from llmkit.training.train import Places, train

    clock = Clock(job)

    class View:
        def step(self, event: Mapping[str, Any], total_steps: int) -> None:
            del total_steps
            clock.step(event["step"])

        def say(self, text: str) -> None:
            print(text, flush=True)

    out = job.scratch
    (out / "adapter").mkdir()
    config = TrainingConfig.model_validate(
        {
            "adapter": {"rank": SHAPES[job.shape].rank, "alpha": ALPHA},
            "batch": {"rows": job.batch, "accumulate": job.accumulate},
            "optimizer": job.optimizer,
            "schedule": "constant",
            "gradient_checkpointing": job.checkpointing,
            "checkpoint_every": 10**6,
            "seed": job.seed,
        }
    )
    base = ModelConfig(base=f"random-{job.shape}", quantization="nf4")
    prepared = PreparedDataset(job.folder / "data", {})
    places = Places(job.model, out / "checkpoints", out / "events.jsonl", out / "adapter")
    figures = train(config, base, prepared, places, View(), resume_from=None)
    steps = [e for e in read_events(places.events) if e["event"] == "step"]
    return {
        **clock.figures([step["tokens"] for step in steps]),
        "losses": [round(step["loss"], 4) for step in steps],
        "trainable_parameters": figures["trainable_parameters"],
        "compute_dtype": figures["compute_dtype"],
    }


def trl(job: Job, *, packing: bool) -> dict[str, Any]:
    """Train with TRL's SFTTrainer as its documentation advises for QLoRA.

    Packed is best-fit-decreasing, which implies batches without padding. Unpacked, a step has as
    many rows as a step of packs has on average.
    """
    from datasets import Dataset, disable_progress_bars
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    disable_progress_bars()
    clock, cuda = Clock(job), torch.cuda.is_available()

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            del args, control
            if logs and "loss" in logs:
                clock.step(state.global_step)

    rows, shape = job.rows(), SHAPES[job.shape]
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(
        job.model,
        dtype=torch.bfloat16,
        quantization_config=quantization,
        attn_implementation=_attention(job),
        device_map={"": "cuda" if cuda else "cpu"},
    )
    forward_passes = job.steps * job.accumulate
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(job.scratch),
            per_device_train_batch_size=job.batch
            if packing
            else -(-len(rows.lengths) // forward_passes),
            gradient_accumulation_steps=job.accumulate,
            num_train_epochs=1,
            learning_rate=2e-4,
            lr_scheduler_type="constant",
            optim=OPTIMIZERS[job.optimizer],
            bf16=True,
            gradient_checkpointing=job.checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            max_length=shape.tokens,
            packing=packing,
            completion_only_loss=True,
            logging_steps=1,
            report_to="none",
            save_strategy="no",
            seed=job.seed,
            use_cpu=not cuda,
        ),
        train_dataset=Dataset.from_dict(
            {
                "input_ids": [ids.tolist() for ids, _ in rows.each()],
                "completion_mask": [mask.astype(int).tolist() for _, mask in rows.each()],
            }
        ),
        processing_class=tokenizer(shape.vocabulary),
        peft_config=LoraConfig(
            r=shape.rank, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
        callbacks=[Watch()],
    )
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    seen = [0, *(int(entry["num_tokens"]) for entry in steps)]
    return {
        **clock.figures([after - before for before, after in pairwise(seen)]),
        "losses": [round(float(entry["loss"]), 4) for entry in steps],
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "attention": model.config._attn_implementation,
    }


def _attention(job: Job) -> str:
    """FlashAttention where it is installed, unless another was asked for."""
    if job.trl_attention != "auto":
        return job.trl_attention
    flash = torch.cuda.is_available() and find_spec("flash_attn") is not None
    return "flash_attention_2" if flash else "sdpa"


SIDES: dict[str, Callable[[Job], dict[str, Any]]] = {
    "make": made,
    "llmkit": ours,
    "trl_packed": lambda job: trl(job, packing=True),
    "trl_unpacked": lambda job: trl(job, packing=False),
}


def figures_of(side: str, job: Job) -> dict[str, Any]:
    """Run one side; a card that is too small is a result, not a failure."""
    try:
        return SIDES[side](job)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and "out of memory" not in str(error):
            raise
        return {"out_of_memory": str(error).splitlines()[0]}
