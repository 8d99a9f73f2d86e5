"""The peer of benchmarks/train.py: supervised fine-tuning as TRL's documentation shows it.

    python benchmarks/peers/trl_sft.py --model FOLDER --rows alpaca.json --packing [--quantize nf4]

Prints one JSON line: tokens per second without padding after two warm-up steps, peak resident
memory in MiB, and the logged losses.
"""

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    TrainerCallback,
)
from trl import SFTConfig, SFTTrainer

WARM_UP = 2


class Stopwatch(TrainerCallback):
    """Measures from the end of the warm-up to the end of the last step."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Remember when a step ended."""
        del args, control
        self.ended = time.perf_counter()
        if state.global_step == WARM_UP:
            self.began = self.ended


def conversations(path: Path) -> Dataset:
    """Rows in alpaca format as messages."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return Dataset.from_list(
        [
            {
                "messages": [
                    {"role": "user", "content": f"{row['instruction']}\n{row['input']}".strip()},
                    {"role": "assistant", "content": row["output"]},
                ]
            }
            for row in rows
        ]
    )


def main() -> None:
    """Train and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--quantize", choices=["none", "nf4"], default="none")
    parser.add_argument("--packing", action="store_true")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--save", type=Path, help="a folder for the adapter")
    arguments = parser.parse_args()
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(
        arguments.model,
        dtype=torch.bfloat16,
        quantization_config=nf4 if arguments.quantize == "nf4" else None,
    )
    stopwatch = Stopwatch()
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir="trl",
            per_device_train_batch_size=arguments.batch,
            max_steps=arguments.steps,
            learning_rate=2e-4,
            bf16=True,
            gradient_checkpointing=False,
            max_length=arguments.max_tokens,
            packing=arguments.packing,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
        ),
        train_dataset=conversations(arguments.rows),
        processing_class=AutoTokenizer.from_pretrained(arguments.model),
        peft_config=LoraConfig(
            r=arguments.rank,
            lora_alpha=2 * arguments.rank,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
        callbacks=[stopwatch],
    )
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "num_tokens" in entry]
    tokens = steps[-1]["num_tokens"] - steps[WARM_UP - 1]["num_tokens"]
    figures = {
        "tokens_per_second": tokens / (stopwatch.ended - stopwatch.began),
        "peak_resident_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "losses": [float(step["loss"]) for step in steps],
        "tokens": steps[-1]["num_tokens"],
    }
    if arguments.save:
        trainer.save_model(str(arguments.save))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
