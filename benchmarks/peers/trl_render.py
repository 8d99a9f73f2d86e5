"""The peer of benchmarks/render.py: SFTTrainer's own preparation of its data set, timed.

    python benchmarks/peers/trl_render.py answers ROWS.jsonl OUT.json --model FOLDER --workers 2

Writes every row's ids and mask, and prints one JSON line: CPU seconds (workers included) and wall
seconds of ``SFTTrainer._prepare_dataset``. The trainer itself, its model and the reading of the
rows are not in them. Nothing is truncated, which spares TRL two of its passes.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer

TURN = "message['content'] + '<|im_end|>'"
MARKED = (
    "}}{% if message['role'] == 'assistant' %}{% generation %}{{ TURN }}{% endgeneration %}"
    "{% else %}{{ TURN }}{% endif %}{{ "
).replace("TURN", TURN)


class Timed(SFTTrainer):
    """Measures the preparation."""

    spent: dict[str, float]
    prepared: Any

    def _prepare_dataset(self, *arguments: Any, **options: Any) -> Any:
        cpu, wall = sum(os.times()[:4]), time.perf_counter()
        self.prepared = super()._prepare_dataset(*arguments, **options)
        self.spent = {
            "cpu_seconds": sum(os.times()[:4]) - cpu,
            "wall_seconds": time.perf_counter() - wall,
        }
        return self.prepared


def main() -> None:
    """Prepare and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=("answers", "text"))
    parser.add_argument("rows", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    # The same template with the marks that TRL's masks need; it brings none for this model.
    plain = str(tokenizer.chat_template)
    tokenizer.chat_template = plain.replace(f"+ {TURN} +", MARKED, 1)
    if tokenizer.chat_template == plain:
        raise SystemExit("the chat template is not the one this script knows how to mark")
    tiny = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
    )
    with tempfile.TemporaryDirectory() as scratch:
        rows = load_dataset("json", data_files=str(arguments.rows), cache_dir=scratch)["train"]
        trainer = Timed(
            model=LlamaForCausalLM(tiny),
            args=SFTConfig(
                output_dir=f"{scratch}/trl",
                max_length=None,
                assistant_only_loss=arguments.case == "answers",
                dataset_num_proc=arguments.workers if arguments.workers > 1 else None,
                report_to="none",
                bf16=False,
                use_cpu=not torch.cuda.is_available(),
            ),
            train_dataset=rows,
            processing_class=tokenizer,
        )
        # Nothing precedes the first token, so whether it is supervised says nothing.
        lines = [
            json.dumps([row["input_ids"], [int(label != -100) for label in row["labels"][1:]]])
            for row in trainer.prepared
        ]
    arguments.out.write_text("\n".join(lines))
    print(json.dumps(trainer.spent))


if __name__ == "__main__":
    main()
