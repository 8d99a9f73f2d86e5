"""Continuous batching against transformers' generate, on answers of mixed length.

    python benchmarks/batching.py [--requests 32] [--batch 8] [--lengths 8 16 32 128] [--turns 3]

The same prompts, the same answers' lengths (greedy, end of text ignored), the same dtype, in turns:

- `sequential`: transformers' `generate`, one request after the other;
- `static`: `generate` on batches of `--batch` in order of arrival, padded on the left; a batch runs
  until its longest answer is done;
- `sorted`: the same with requests sorted by length first, the best a static batcher can do when it
  knows every answer's length beforehand;
- `llmkit`: our server over HTTP, `--batch` requests at once.

Only the tokens that were asked for count. transformers computes in as many threads as is best for
it here: one (as the engine has on two cores) and all are tried, and the faster taken, unless
`--peer-threads` says so. The last line printed is one JSON object; its ratios are tokens a
second of llmkit over each of the others.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers

# This folder holds a file of that package's name.
sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).parent]

from llmkit.models.catalog import resolve
from serve.bench.client import Target
from serve.bench.load import Load, run_load
from serve.bench.summary import summarize
from serve.bench.workload import Ask, made_up
from serve.model import open_model
from serve.process import ServerProcess
from serve.settings import ServeSettings


class Generate:
    """transformers' generate, as its documentation says to batch."""

    def __init__(self, folder: Path, device: str) -> None:
        self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="bfloat16")
        self.model = model.eval().to(device)
        self.device = device

    def batch(self, asks: Sequence[Ask]) -> None:
        """Answer these together, until the longest answer is done."""
        texts = [
            self.tokenizer.apply_chat_template(
                list(ask.messages), tokenize=False, add_generation_prompt=True
            )
            for ask in asks
        ]
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        longest = max(ask.max_tokens for ask in asks)
        with torch.inference_mode():
            made = self.model.generate(
                **inputs.to(self.device),
                max_new_tokens=longest,
                min_new_tokens=longest,
                do_sample=False,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        assert made.shape[1] == inputs["input_ids"].shape[1] + longest
        self.tokenizer.batch_decode(made)

    def all(self, asks: Sequence[Ask], batch: int) -> float:
        """Seconds for all of them in batches."""
        began = time.perf_counter()
        for start in range(0, len(asks), batch):
            self.batch(asks[start : start + batch])
        return time.perf_counter() - began


def best_threads(generate: Generate, asks: Sequence[Ask], batch: int) -> int:
    """The number of threads with which a batch is faster."""
    seconds = {}
    for threads in {1, len(os.sched_getaffinity(0))}:
        torch.set_num_threads(threads)
        generate.all(asks[:batch], batch)
        seconds[threads] = generate.all(asks[:batch], batch)
    print(f"seconds by threads: {seconds}", file=sys.stderr)
    return min(seconds, key=lambda threads: seconds[threads])


def ours(target: Target, asks: Sequence[Ask], batch: int) -> float:
    """Seconds of our server for all of them."""
    done = asyncio.run(run_load(target, asks, Load(concurrency=batch)))
    summary = summarize(done)
    expected = sum(ask.max_tokens for ask in asks)
    if summary.errors or summary.completion_tokens != expected:
        raise SystemExit(f"{summary.errors}, {summary.completion_tokens} tokens of {expected}")
    return done.seconds


def main() -> None:
    """Take turns; print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lengths", type=int, nargs="+", default=[8, 16, 32, 128])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--peer-threads", type=int)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    args = parser.parse_args()
    asks = made_up(args.requests, 24, args.lengths)
    by_length = sorted(asks, key=lambda ask: ask.max_tokens)
    tokens = sum(ask.max_tokens for ask in asks)
    folder = resolve(args.model).folder
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generate = Generate(folder, device)
    threads = args.peer_threads or best_threads(generate, asks, args.batch)
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as logs:
        settings = ServeSettings(max_model_len=2048, dtype="bfloat16", database="none")
        model = open_model(folder, name="model")
        with ServerProcess(model, Path(logs) / "log", settings) as server:
            target = Target(server.url, "model", ignore_eos=True)
            sides: dict[str, Callable[[], float]] = {
                "llmkit": lambda: ours(target, asks, args.batch),
                "static": lambda: generate.all(asks, args.batch),
                "sorted": lambda: generate.all(by_length, args.batch),
                "sequential": lambda: generate.all(asks, 1),
            }
            ours(target, asks[:4], 4)
            generate.all(asks[:1], 1)
            seconds: dict[str, list[float]] = {name: [] for name in sides}
            for _ in range(args.turns):
                for name, side in sides.items():
                    seconds[name].append(side())
                    print(f"{name}: {seconds[name][-1]:.1f} s", file=sys.stderr)
    rates = {name: tokens / statistics.median(each) for name, each in seconds.items()}
    ratios = {
        f"tokens_per_second_vs_generate_{name}": round(
            statistics.median(
                [theirs / mine for theirs, mine in zip(each, seconds["llmkit"], strict=True)]
            ),
            3,
        )
        for name, each in seconds.items()
        if name != "llmkit"
    }
    figures = {
        "tokens": tokens,
        "tokens_per_second": {name: round(rate, 1) for name, rate in rates.items()},
        "seconds": {name: [round(each, 2) for each in turns] for name, turns in seconds.items()},
        "peer_threads": threads,
        "batch": args.batch,
        "lengths": args.lengths,
    }
    peers = {"transformers": version("transformers"), "torch": version("torch")}
    print(json.dumps({"figures": figures, "peers": peers, "ratios": ratios}))


if __name__ == "__main__":
    main()
