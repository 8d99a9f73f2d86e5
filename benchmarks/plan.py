"""What `llmkit plan` counts beside what training takes: peak resident memory, recipe by recipe.

    python benchmarks/plan.py --rows alpaca.json [--only NAME ...] [--together 1]

Every recipe is planned in one process and trained in another, for as many steps as show its peak:
three, on real rows, the longest packs first. Measured is what the kernel says the training process
held at most (`getrusage`), with what its libraries and its allocator hold; nothing is tuned by
recipe. The last line printed is one JSON object; its ratios are planned over measured.
"""

import argparse
import concurrent.futures
import importlib.metadata
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

STEPS = 3
SMOLLM2 = "smollm2-135m-instruct"
WIDE = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 8}
WIDE |= {"num_attention_heads": 16, "num_key_value_heads": 4}
DEEP = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 24}
DEEP |= {"num_attention_heads": 6, "num_key_value_heads": 6}
LORA = {"kind": "lora", "rank": 16}
DORA = LORA | {"dora": True}
FULL = {"kind": "full"}


def recipe(
    adapter: dict[str, Any],
    quantization: str = "none",
    tokens: int = 512,
    rows: int = 1,
    chunk: int = 256,
    shape: str = SMOLLM2,
    **training: Any,
) -> dict[str, Any]:
    """One recipe to plan and train."""
    batch = {"rows": rows, "accumulate": training.pop("accumulate", 1)}
    return {
        "model": {"base": shape, "quantization": quantization, "device": "cpu"},
        "tokens": tokens,
        "chunk": chunk,
        "training": {"adapter": adapter, "batch": batch, **training},
    }


CHECKPOINTING: dict[str, Any] = {"gradient_checkpointing": True}
RECIPES = {
    "lora": recipe(LORA),
    "lora, 4 packs": recipe(LORA, rows=4),
    "lora, 256 tokens": recipe(LORA, tokens=256),
    "lora, 1,024 tokens": recipe(LORA, tokens=1024),
    "lora, 1,024 tokens, 2 packs, checkpointing": recipe(
        LORA, tokens=1024, rows=2, **CHECKPOINTING
    ),
    "lora, rank 64 on q and v": recipe(LORA | {"rank": 64, "targets": ["q_proj", "v_proj"]}),
    "lora, chunks of 128": recipe(LORA, rows=2, chunk=128),
    "lora, chunks of 2,048": recipe(LORA, rows=4, chunk=2048),
    "nf4 lora": recipe(LORA, "nf4"),
    "nf4 lora, 2 packs": recipe(LORA, "nf4", rows=2),
    "nf4 lora, 4 packs, checkpointing": recipe(LORA, "nf4", rows=4, **CHECKPOINTING),
    "int8 lora": recipe(LORA, "int8"),
    "dora": recipe(DORA),
    "nf4 dora, 256 tokens": recipe(DORA, "nf4", tokens=256),
    "freeze 4 layers, 2 packs": recipe({"kind": "freeze", "layers": 4}, rows=2),
    "full": recipe(FULL),
    "full, 1,024 tokens, checkpointing": recipe(FULL, tokens=1024, **CHECKPOINTING),
    "full, 256 tokens, accumulating": recipe(FULL, tokens=256, rows=2, accumulate=2),
    "full, adafactor": recipe(FULL, optimizer="adafactor"),
    "wide random model, lora": recipe(LORA, shape="wide"),
    "deep random model, full": recipe(FULL, shape="deep"),
}


def model_folder(shape: str, work: Path) -> Path:
    """The model's folder; of random weights, one made for the purpose."""
    from llmkit.models.catalog import resolve

    if shape == SMOLLM2:
        return resolve(SMOLLM2).folder
    return work / shape


def make_models(work: Path) -> None:
    """Write models of random weights with SmolLM2's vocabulary."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from llmkit.models.catalog import resolve

    smollm2 = resolve(SMOLLM2).folder
    for name, values in {"wide": WIDE, "deep": DEEP}.items():
        config = AutoConfig.from_pretrained(smollm2, head_dim=64, **values)
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(work / name)
        AutoTokenizer.from_pretrained(smollm2).save_pretrained(work / name)


def prepare(rows: Path, tokens: int, folder: Path) -> None:
    """Prepare the rows, and put the longest packs first, so that few steps see the heaviest."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from data_prep import pipeline
    from data_prep.chat_templates import load_template
    from data_prep.settings import DataConfig
    from data_prep.tokenizer import load_tokenizer

    folder.mkdir()
    values = {"sources": [{"path": str(rows)}], "max_tokens": tokens, "on_error": "skip"}
    template = load_template("keep", load_tokenizer(model_folder(SMOLLM2, folder)))
    prepared = pipeline.prepare(DataConfig.model_validate(values), template, folder)
    table = prepared.sequences("train")
    lengths = pc.list_value_length(table["input_ids"])
    longest = pc.sort_indices(lengths, sort_keys=[("", "descending")])[:24]
    few = table.take(longest).combine_chunks()
    with pa.ipc.new_file(str(folder / "train.arrow.new"), few.schema) as file:
        file.write_table(few)
    (folder / "train.arrow.new").replace(folder / "train.arrow")


def plan(spec: dict[str, Any], work: Path) -> dict[str, Any]:
    """Count a recipe, as `llmkit plan` does, in this process."""
    import psutil

    from data_prep.prepared import PreparedDataset
    from llmkit.models.loading import choose_device, compute_dtype
    from llmkit.planning.estimate import count_shapes, on_cpu
    from llmkit.planning.workload import workload_of
    from llmkit.training import loss
    from llmkit.training.settings import TrainingConfig

    process = psutil.Process().memory_info().rss
    loss.CHUNK = spec["chunk"]
    config = TrainingConfig.model_validate(spec["training"])
    workload = workload_of(PreparedDataset.open(work / str(spec["tokens"])), config)
    folder = model_folder(spec["model"]["base"], work)
    dtype = compute_dtype(choose_device("cpu"))
    shapes = count_shapes(folder, spec["model"]["quantization"], config, workload, dtype)
    found = on_cpu(shapes, process, config)
    return {"mib": found.peak >> 20, "phases": {k: v >> 20 for k, v in found.phases.items()}}


def train(spec: dict[str, Any], work: Path) -> dict[str, Any]:
    """Train a recipe in this process, and say what it held at most."""
    from data_prep.prepared import PreparedDataset
    from llmkit.models.settings import ModelConfig
    from llmkit.training import loss
    from llmkit.training.settings import TrainingConfig
    from llmkit.training.train import Places
    from llmkit.training.train import train as run

    class Silent:
        def step(self, event: Any, total_steps: int) -> None: ...
        def say(self, text: str) -> None: ...

    loss.CHUNK = spec["chunk"]
    still = {"max_steps": STEPS, "checkpoint_every": 10**6, "learning_rate": 1e-5}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "result").mkdir()
        places = Places(
            model_folder(spec["model"]["base"], work),
            folder / "checkpoints",
            folder / "events.jsonl",
            folder / "result",
        )
        run(
            TrainingConfig.model_validate(spec["training"] | still),
            ModelConfig.model_validate(spec["model"]),
            PreparedDataset.open(work / str(spec["tokens"])),
            places,
            Silent(),
            resume_from=None,
        )
    return {"mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}


def in_a_process(what: str, name: str, work: Path) -> dict[str, Any]:
    """Plan or train in a process of its own; its last line is its figures."""
    command = [sys.executable, __file__, "--do", what, name, str(work)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{what} of {name!r} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def compare(name: str, work: Path) -> dict[str, Any]:
    """Plan and train one recipe."""
    planned, measured = (in_a_process(what, name, work) for what in ("plan", "train"))
    ratio = planned["mib"] / measured["mib"]
    row = f"| {name} | {planned['mib']:,} | {measured['mib']:,} | {ratio - 1:+.1%} |"
    print(row, flush=True)
    return {"planned": planned, "measured_mib": measured["mib"], "ratio": round(ratio, 3)}


def main() -> None:
    """Compare every recipe, print a table, and end with one JSON line."""
    if "--do" in sys.argv:
        what, name, folder = sys.argv[2:]
        print(json.dumps({"plan": plan, "train": train}[what](RECIPES[name], Path(folder))))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=lambda p: Path(p).resolve(), required=True)
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--together", type=int, default=1, help="recipes at a time")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        make_models(work)
        for tokens in sorted({RECIPES[name]["tokens"] for name in arguments.only}):
            prepare(arguments.rows, tokens, work / str(tokens))
        print("| recipe | planned, MiB | measured, MiB | error |\n|---|---|---|---|")
        with concurrent.futures.ThreadPoolExecutor(arguments.together) as pool:
            found = list(pool.map(lambda name: compare(name, work), arguments.only))
    figures = dict(zip(arguments.only, found, strict=True))
    packages = ("torch", "transformers", "peft", "bitsandbytes")
    versions = {package: importlib.metadata.version(package) for package in packages}
    ratios = {name: result["ratio"] for name, result in figures.items()}
    print(json.dumps({"figures": figures, "packages": versions, "ratios": ratios}))


if __name__ == "__main__":
    main()
