"""Training speed and memory beside TRL, on the same rows, rank, tokens and steps, in one run.

    python benchmarks/train.py --rows alpaca.json [--quantize none nf4] [--steps 8] [--repeats 3]

Both sides train LoRA of one rank on all linear layers of SmolLM2-135M-Instruct, rows of at most
``--tokens`` tokens, packed, ``--batch`` packs a step. Each measurement is a process of its own, and
llmkit and TRL take turns, so that a machine that slows down slows both down. TRL runs from
`.bench-venv` (`make bench-peers`) where it is there. The last line printed is one JSON object.

Tokens per second count every token that is not padding, after two warm-up steps. Memory is the peak
resident set of the process.
"""

import argparse
import importlib.metadata
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PEER = Path(__file__).resolve().parent / "peers" / "trl_sft.py"
WARM_UP = 2


def ours(arguments: argparse.Namespace, quantization: str) -> dict[str, Any]:
    """Train with llmkit in this process and report as the peer does."""
    from data_prep.chat_templates import load_template
    from data_prep.pipeline import prepare
    from data_prep.settings import DataConfig
    from data_prep.tokenizer import load_tokenizer
    from llmkit.models.catalog import resolve
    from llmkit.models.settings import ModelConfig
    from llmkit.training.progress import read_events
    from llmkit.training.settings import TrainingConfig
    from llmkit.training.train import Places, train

    class Silent:
        def step(self, event: Any, total_steps: int) -> None: ...
        def say(self, text: str) -> None: ...

    model = resolve("smollm2-135m-instruct").folder
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("data", "adapter"):
            (folder / part).mkdir()
        data = DataConfig.model_validate(
            {
                "sources": [{"path": str(arguments.rows)}],
                "max_tokens": arguments.tokens,
                "on_error": "skip",
            }
        )
        prepared = prepare(data, load_template("keep", load_tokenizer(model)), folder / "data")
        config = TrainingConfig.model_validate(
            {
                "max_steps": arguments.steps,
                "batch": {"rows": arguments.batch},
                "adapter": {"rank": arguments.rank, "alpha": 2 * arguments.rank},
                "checkpoint_every": 10**6,
            }
        )
        places = Places(model, folder / "checkpoints", folder / "events.jsonl", folder / "adapter")
        base = ModelConfig(base="smollm2-135m-instruct", quantization=quantization)
        train(config, base, prepared, places, Silent(), resume_from=None)
        steps = [e for e in read_events(folder / "events.jsonl") if e["event"] == "step"]
    timed = steps[WARM_UP:]
    return {
        "tokens_per_second": sum(s["tokens"] for s in timed) / sum(s["seconds"] for s in timed),
        "peak_resident_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "losses": [step["loss"] for step in steps],
    }


def measured(command: list[str], folder: Path) -> dict[str, Any]:
    """Run one side in a process of its own; its last line is its figures."""
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    figures["process_seconds"] = round(time.monotonic() - began, 1)
    return figures


def compare(arguments: argparse.Namespace, quantization: str) -> dict[str, Any]:
    """Take turns, and report medians and the ratio of every pair."""
    from llmkit.models.catalog import resolve

    peer_python = ROOT / ".bench-venv" / "bin" / "python"
    python = str(peer_python) if peer_python.is_file() else sys.executable
    shared = ["--rows", str(arguments.rows), "--rank", str(arguments.rank)]
    shared += ["--steps", str(arguments.steps), "--batch", str(arguments.batch)]
    model = str(resolve("smollm2-135m-instruct").folder)
    theirs = [python, str(arguments.peer), "--model", model, "--quantize", quantization]
    theirs += ["--packing", "--max-tokens", str(arguments.tokens), *shared]
    own = [sys.executable, __file__, "--side", quantization, "--tokens", str(arguments.tokens)]
    sides: dict[str, list[dict[str, Any]]] = {"llmkit": [], "trl": []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(arguments.repeats):
            for side, command in (("llmkit", own + shared), ("trl", theirs)):
                sides[side].append(measured(command, Path(folder)))
                speed = sides[side][-1]["tokens_per_second"]
                print(f"{quantization} turn {turn + 1} {side}: {speed:.1f} tokens/s", flush=True)
    pairs = list(zip(sides["llmkit"], sides["trl"], strict=True))
    speeds = [a["tokens_per_second"] / b["tokens_per_second"] for a, b in pairs]
    memory = [a["peak_resident_mib"] / b["peak_resident_mib"] for a, b in pairs]
    return {
        "sides": sides,
        "speed_ratio": statistics.median(speeds),
        "speed_ratios": [round(value, 3) for value in speeds],
        "memory_ratio": statistics.median(memory),
    }


def main() -> None:
    """Measure, print what happens, and end with one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=lambda p: Path(p).resolve(), required=True)
    parser.add_argument("--peer", type=lambda p: Path(p).resolve(), default=PEER)
    parser.add_argument("--quantize", nargs="+", choices=["none", "nf4"], default=["none", "nf4"])
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(ours(arguments, arguments.side)))
        return
    found = {kind: compare(arguments, kind) for kind in arguments.quantize}
    names = {"none": "bf16", "nf4": "nf4"}
    ratios = {}
    for kind, result in found.items():
        prefix = names[kind]
        ratios[f"{prefix}_tokens_per_second_vs_trl_packed"] = round(result["speed_ratio"], 3)
        ratios[f"{prefix}_peak_memory_vs_trl_packed"] = round(result["memory_ratio"], 3)
    packages = ("trl", "transformers", "peft", "torch", "bitsandbytes")
    versions = {package: importlib.metadata.version(package) for package in packages}
    print(json.dumps({"figures": found, "peers": versions, "ratios": ratios}))


if __name__ == "__main__":
    main()
