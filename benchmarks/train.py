"""Training speed, memory and loss beside TRL, on the same rows, rank, tokens and steps, in one run.

    python benchmarks/train.py --rows alpaca.json [--quantize none nf4] [--steps 10] [--repeats 3]
                               [--loss-steps 40]

Both sides train LoRA of one rank on all linear layers of SmolLM2-135M-Instruct, rows of at most
``--tokens`` tokens, ``--batch`` packs a step; TRL with packing and without. Each measurement is a
process of its own, and the sides take turns, so that a machine that slows down slows all down. TRL
runs from `.bench-venv` (`make bench-peers`) where it is there. The last line printed is one JSON
object.

Tokens per second count every token that is not padding, after two warm-up steps. llmkit takes the
loss on answers alone, as it does unless told otherwise, and TRL, as called, on every token: what
llmkit does when told to learn every token too is measured besides. Memory is the peak resident set
of the process.

With ``--loss-steps`` both train as long from the same start, on the same share of the rows, both on
every token; then both adapters are judged by transformers and peft alone, on rows that neither saw.
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
NAMES = {"none": "bf16", "nf4": "nf4"}
HELD_OUT = 96
"""Rows that the judged adapters have not seen."""
BASE = "smollm2-135m-instruct"


def ours(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train with llmkit in this process and report as the peer does."""
    from data_prep.chat_templates import load_template
    from data_prep.pipeline import prepare
    from data_prep.settings import DataConfig
    from data_prep.tokenizer import load_tokenizer
    from llmkit.models.catalog import resolve
    from llmkit.models.settings import ModelConfig
    from llmkit.training.events import read_events
    from llmkit.training.settings import TrainingConfig
    from llmkit.training.train import Places, train

    class Silent:
        def step(self, event: Any, total_steps: int) -> None: ...
        def say(self, text: str) -> None: ...

    model = resolve(BASE).folder
    adapter = arguments.save or Path(tempfile.mkdtemp())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        data = DataConfig.model_validate(
            {
                "sources": [{"path": str(arguments.rows)}],
                "max_tokens": arguments.tokens,
                "on_error": "skip",
                "supervise": arguments.supervise,
            }
        )
        prepared = prepare(data, load_template("keep", load_tokenizer(model)), folder / "data")
        config = TrainingConfig.model_validate(
            {
                "max_steps": arguments.steps,
                "batch": {"rows": arguments.batch},
                "adapter": {"rank": arguments.rank, "alpha": 2 * arguments.rank},
                "schedule": "linear",  # as TRL's
                "checkpoint_every": 10**6,
            }
        )
        places = Places(model, folder / "checkpoints", folder / "events.jsonl", adapter)
        base = ModelConfig(base=BASE, quantization=arguments.side)
        found = train(config, base, prepared, places, Silent(), resume_from=None)
        steps = [e for e in read_events(folder / "events.jsonl") if e["event"] == "step"]
    timed = steps[WARM_UP:]
    seconds = sum(step["seconds"] for step in timed)
    tokens = sum(step["tokens"] for step in timed)
    supervised = sum(step["supervised"] for step in timed)
    rate = matrix_rate(arguments.batch * arguments.tokens)
    return {
        "tokens_per_second": tokens / seconds,
        "peak_resident_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "losses": [step["loss"] for step in steps],
        "tokens": sum(step["tokens"] for step in steps),
        "matrix_gflops": rate / 1e9,
        "share_of_matrix_rate": products(model, tokens, supervised) / seconds / rate,
        "kernels": {f"{k['kind']} {k['shape']}": k["used"] for k in found["kernels"]},
    }


def matrix_rate(tokens: int) -> float:
    """The operations a second of this machine's bfloat16 products, at SmolLM2's own shapes."""
    import torch

    best = 0.0
    for rows, across in ((1536, 576), (576, 1536), (576, 576)):
        x = torch.randn(tokens, across).bfloat16()
        weight = torch.randn(rows, across).bfloat16()
        for _ in range(20):
            began = time.perf_counter()
            torch.nn.functional.linear(x, weight)
            best = max(best, 2 * tokens * rows * across / (time.perf_counter() - began))
    return best


def products(folder: Path, tokens: int, supervised: int) -> float:
    """Operations that LoRA training cannot do without: forward, and back to the inputs.

    Of the frozen layers for every token, of the head for supervised ones; those of attention and of
    the adapters are not counted.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    width, deep = config["hidden_size"], config["num_hidden_layers"]
    key_width = width * config["num_key_value_heads"] // config["num_attention_heads"]
    layer = 2 * width * width + 2 * width * key_width + 3 * width * config["intermediate_size"]
    return 4.0 * (deep * layer * tokens + config["vocab_size"] * width * supervised)


def judge(folders: list[Path], rows: Path) -> dict[str, Any]:
    """Mean losses of adapters on held-out rows, without llmkit: transformers and peft alone."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from llmkit.models.catalog import resolve

    model = resolve(BASE).folder
    tokenizer = AutoTokenizer.from_pretrained(model)
    found = {}
    for folder in folders:
        base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        tuned = PeftModel.from_pretrained(base, folder).eval()
        sums = {"every_token": [0.0, 0], "answers": [0.0, 0]}
        for row in json.loads(rows.read_text(encoding="utf-8")):
            asked = [{"role": "user", "content": f"{row['instruction']}\n{row['input']}".strip()}]
            said = [*asked, {"role": "assistant", "content": row["output"]}]
            ids = tokenizer.apply_chat_template(said, return_dict=False)
            start = len(
                tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
            )
            with torch.no_grad():
                logits = tuned(torch.tensor([ids])).logits[0, :-1]
            losses = torch.nn.functional.cross_entropy(
                logits, torch.tensor(ids[1:]), reduction="none"
            )
            for name, part in (("every_token", losses), ("answers", losses[start - 1 :])):
                sums[name][0] += float(part.sum())
                sums[name][1] += len(part)
        found[folder.name] = {name: total / count for name, (total, count) in sums.items()}
    return found


def measured(command: list[str], folder: Path) -> dict[str, Any]:
    """Run one side in a process of its own; its last line is its figures."""
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    figures["process_seconds"] = round(time.monotonic() - began, 1)
    return figures


class Sides:
    """Commands of the sides, with the settings that they share."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        from llmkit.models.catalog import resolve

        peer = ROOT / ".bench-venv" / "bin" / "python"
        self.peer_python = str(peer) if peer.is_file() else sys.executable
        self.arguments = arguments
        self.model = str(resolve(BASE).folder)

    def _shared(self, rows: Path, steps: int) -> list[str]:
        each = self.arguments
        return [
            *("--rows", str(rows), "--rank", str(each.rank), "--steps", str(steps)),
            *("--batch", str(each.batch)),
        ]

    def llmkit(self, kind: str, supervise: str, rows: Path, steps: int, *more: str) -> list[str]:
        """How llmkit is called."""
        own = [sys.executable, __file__, "--side", kind, "--tokens", str(self.arguments.tokens)]
        return [*own, "--supervise", supervise, *self._shared(rows, steps), *more]

    def trl(self, kind: str, rows: Path, steps: int, *more: str) -> list[str]:
        """How TRL is called."""
        peer = [self.peer_python, str(self.arguments.peer), "--model", self.model]
        limit = ["--quantize", kind, "--max-tokens", str(self.arguments.tokens)]
        return [*peer, *limit, *self._shared(rows, steps), *more]


def compare(sides: Sides, kind: str) -> dict[str, Any]:
    """Take turns, and report medians and the ratios of every turn."""
    arguments = sides.arguments
    rows, steps = arguments.rows, arguments.steps
    commands = {
        "llmkit": sides.llmkit(kind, "answers", rows, steps),
        "trl_packed": sides.trl(kind, rows, steps, "--packing"),
        "llmkit_every_token": sides.llmkit(kind, "all", rows, steps),
        "trl_unpacked": sides.trl(kind, rows, 2 * steps),
    }
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(arguments.repeats):
            for name, command in commands.items():
                each = measured(command, Path(folder))
                found[name].append(each)
                print(
                    f"{kind} turn {turn + 1} {name}: {each['tokens_per_second']:.1f} tokens/s, "
                    f"{each['peak_resident_mib']} MiB",
                    flush=True,
                )
    ratios = {}
    for name, ours_name, theirs, figure in (
        ("tokens_per_second_vs_trl_packed", "llmkit", "trl_packed", "tokens_per_second"),
        ("tokens_per_second_vs_trl_unpacked", "llmkit", "trl_unpacked", "tokens_per_second"),
        (
            "tokens_per_second_vs_trl_packed_learning_every_token",
            *("llmkit_every_token", "trl_packed", "tokens_per_second"),
        ),
        ("peak_memory_vs_trl_packed", "llmkit", "trl_packed", "peak_resident_mib"),
        (
            "peak_memory_vs_trl_packed_learning_every_token",
            *("llmkit_every_token", "trl_packed", "peak_resident_mib"),
        ),
    ):
        pairs = zip(found[ours_name], found[theirs], strict=True)
        each_turn = [a[figure] / b[figure] for a, b in pairs]
        ratios[f"{NAMES[kind]}_{name}"] = round(statistics.median(each_turn), 3)
        found.setdefault("every_turn", []).append({name: [round(r, 3) for r in each_turn]})
    shares = [each["share_of_matrix_rate"] for each in found["llmkit"]]
    return {
        "sides": found,
        "share_of_matrix_rate": round(statistics.median(shares), 3),
        "ratios": ratios,
    }


def compare_losses(sides: Sides, kind: str) -> dict[str, Any]:
    """Train both as long on the same rows, and judge them on others."""
    steps = sides.arguments.loss_steps
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = json.loads(sides.arguments.rows.read_text(encoding="utf-8"))
        seen, held = folder / "seen.json", folder / "held.json"
        seen.write_text(json.dumps(rows[:-HELD_OUT]), encoding="utf-8")
        held.write_text(json.dumps(rows[-HELD_OUT:]), encoding="utf-8")
        places = [folder / "llmkit", folder / "trl"]
        for place in places:
            place.mkdir()
        save = ("--save", str(places[0]))
        found = {"llmkit": measured(sides.llmkit(kind, "all", seen, steps, *save), folder)}
        save = ("--save", str(places[1]))
        found["trl"] = measured(sides.trl(kind, seen, steps, "--packing", *save), folder)
        losses = judge(places, held)
    for side, figures in found.items():
        print(
            f"{kind} after {steps} steps, {figures['tokens']} tokens, {side}: held-out loss "
            f"{losses[side]['every_token']:.4f}, of answers {losses[side]['answers']:.4f}",
            flush=True,
        )
    ratio = losses["llmkit"]["every_token"] / losses["trl"]["every_token"]
    return {
        "sides": found,
        "held_out": losses,
        "ratios": {f"{NAMES[kind]}_held_out_loss_vs_trl_packed": round(ratio, 4)},
    }


def main() -> None:
    """Measure, print what happens, and end with one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=lambda p: Path(p).resolve(), required=True)
    parser.add_argument("--peer", type=lambda p: Path(p).resolve(), default=PEER)
    parser.add_argument("--quantize", nargs="+", choices=["none", "nf4"], default=["none", "nf4"])
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--loss-steps", type=int, default=0)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--supervise", help=argparse.SUPPRESS)
    parser.add_argument("--save", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(ours(arguments)))
        return
    sides = Sides(arguments)
    found: dict[str, Any] = {}
    ratios: dict[str, float] = {}
    for kind in arguments.quantize:
        if arguments.repeats:
            found[kind] = compare(sides, kind)
            ratios |= found[kind].pop("ratios")
        if arguments.loss_steps:
            found[f"{kind} losses"] = compare_losses(sides, kind)
            ratios |= found[f"{kind} losses"].pop("ratios")
    packages = ("trl", "transformers", "peft", "torch", "bitsandbytes")
    versions = {package: importlib.metadata.version(package) for package in packages}
    print(json.dumps({"figures": found, "peers": versions, "ratios": ratios}))


if __name__ == "__main__":
    main()
