"""Generating instruction data: how full the window of calls is, and what novelty costs.

    python benchmarks/generate.py [--parts calls novelty] [--windows 16 64] [--turns 3]

`calls`: Evol-Instruct, with its journal, against an endpoint of its own process that answers after
200 ms. The endpoint counts how many calls are under way; the window's share is the mean of that
while there was enough to do (until as many calls are left as the window takes), over the window.
Throughput is all calls over the whole time, beside the ideal: the window over the latency.

`novelty`: 1,000 candidates against 50,000 instructions, ROUGE-L at 0.7, beside the naive loop
(`benchmarks/peers/novelty.py`, in `.bench-venv`: `make bench-peers`). Texts are instructions and
sentences of real data sets, and instructions put together from the beginning of one and the end of
another, so that many begin alike; a third of the candidates are texts with a few words changed.
Words are cut as rouge_score does. All verdicts must be the same; rouge_score, which takes minutes
for one in fifty candidates, is given those alone.

The last line printed is one JSON object. Its ratios are throughput over the ideal, and CPU time a
candidate over that of each naive loop.
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# This folder holds files of packages' names.
sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).parent]

import httpx

from data_prep.generate.evol_instruct import EvolConfig, OperationWeights
from data_prep.generate.journal import Journal
from data_prep.generate.novelty import NoveltyIndex
from data_prep.generate.settings import LimitsConfig, TeacherConfig
from data_prep.generate.tasks import Task
from data_prep.sources.config import SourceConfig
from llmkit.generation.methods import run_method
from llmkit.generation.recipe import GenerationRecipe
from llmkit.generation.teachers import open_teacher

ROOT = Path(__file__).parents[1]
PEER_PYTHON = ROOT / ".bench-venv" / "bin" / "python"
DATA = ROOT.parent / "shared" / "data"
LATENCY = 0.2
THRESHOLD = 0.7


class Endpoint:
    """Answers every call after a while, and notes when it came and when it was answered."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, float]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI app: `/figures` tells the notes and forgets them."""
        if scope["type"] != "http":
            return
        came = time.monotonic()
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if scope["path"] == "/figures":
            answer: Any = self.calls
            self.calls = []
        else:
            await asyncio.sleep(LATENCY)
            answer = answered(body)
            self.calls.append((came, time.monotonic()))
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


def answered(body: bytes) -> dict[str, Any]:
    """What a teacher would say to any call of Evol-Instruct."""
    asked = json.loads(body)
    text = "It takes three steps: look at it, think about it, and write down what was found. " * 4
    prompt = asked["messages"][-1]["content"]
    if "JSON object" in prompt:
        text = '{"same": false}'
    elif "alone, without an answer" in prompt:
        text = f"Explain how matter {asked['seed']} is seen by those who know most about it."
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": asked["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 200, "completion_tokens": 90, "total_tokens": 290},
    }


def serve(listening: socket.socket) -> None:
    """Answer until the process is ended."""
    import uvicorn

    config = uvicorn.Config(Endpoint(), log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def endpoint() -> Iterator[str]:
    """The address of an endpoint in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process = multiprocessing.get_context("fork").Process(target=serve, args=(listening,))
        process.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            process.terminate()
            process.join()


async def evolved(url: str, window: int, seeds: int, folder: Path) -> float:
    """Seconds of one round of Evol-Instruct: three calls for every seed."""
    recipe = GenerationRecipe(
        name="calls",
        seeds=[SourceConfig(path="unused")],
        teacher=TeacherConfig(
            model="m", base_url=f"{url}/v1", limits=LimitsConfig(concurrency=window)
        ),
        evolve=EvolConfig(rounds=1, operations=OperationWeights(), max_added_words=None),
    )
    tasks = [Task(str(each), f"Tell me about matter {each}") for each in range(seeds)]
    with Journal(folder / "journal.jsonl") as journal:
        opened = open_teacher(
            recipe.teacher, journal, None, lambda _purpose, _calls: None, lambda _text: None
        )
        async with opened as teacher:
            began = time.perf_counter()
            made = await run_method(
                "evol-instruct", recipe, tasks, teacher, teacher, lambda _what, _count: None
            )
            took = time.perf_counter() - began
    assert len(made.generated.rows) == seeds
    assert journal.spent.calls == 3 * seeds
    return took


def fullness(calls: Sequence[Sequence[float]], window: int) -> float:
    """The mean of calls under way over the window, until fewer are left than it takes."""
    starts = sorted(came for came, _ in calls)
    begin, end = starts[window - 1], starts[-window]
    inside = sum(max(0.0, min(end, done) - max(begin, came)) for came, done in calls)
    return inside / (end - begin) / window


def measure_calls(windows: Sequence[int], turns: int) -> tuple[dict[str, Any], dict[str, float]]:
    """Each window in turn."""
    found: dict[int, list[dict[str, float]]] = {window: [] for window in windows}
    with endpoint() as url:
        for turn in range(turns + 1):
            for window in windows:
                seeds = 25 * window
                with tempfile.TemporaryDirectory() as folder:
                    took = asyncio.run(evolved(url, window, seeds, Path(folder)))
                calls = httpx.get(f"{url}/figures").json()
                one = {
                    "window": fullness(calls, window),
                    "throughput": 3 * seeds * LATENCY / window / took,
                }
                print(f"window {window}, turn {turn}: {one}", file=sys.stderr)
                if turn:  # the first one imports
                    found[window].append(one)
    figures, ratios = {}, {}
    for window, each in found.items():
        for name in ("window", "throughput"):
            values = [one[name] for one in each]
            figures[f"{name}_{window}"] = [round(value, 4) for value in values]
        ratios[f"throughput_vs_ideal_{window}"] = round(
            statistics.median(one["throughput"] for one in each), 4
        )
    return figures, ratios


def real_texts() -> tuple[list[str], list[str]]:
    """Instructions, and sentences, of the data sets beside the checkout."""
    instructions = [row["instruction"] for row in _json("alpaca_en_demo/alpaca_en_demo.json")]
    instructions += [row["instruction"] for row in _lines("self_instruct_seed/seed_tasks.jsonl")]
    instructions += [row["turns"][0] for row in _lines("vicuna_bench/question.jsonl")]
    long = [row["question"] for row in _lines("gsm8k_train/train.jsonl")]
    long += [row["text"] for row in _lines("c4_demo/c4_demo.jsonl")]
    long += [row["output"] for row in _json("alpaca_en_demo/alpaca_en_demo.json")]
    sentences = [part for text in long for part in re.split(r"(?<=[.?!])\s+", text)]
    return instructions, [each for each in sentences if 4 <= len(each.split()) <= 60]


def _json(name: str) -> Any:
    return json.loads((DATA / name).read_text(encoding="utf-8"))


def _lines(name: str) -> list[Any]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def texts_and_candidates(
    texts: int, candidates: int, random_: random.Random
) -> tuple[list[str], list[str]]:
    """Different texts, and candidates of which some are near one of them."""
    instructions, sentences = real_texts()
    pool = dict.fromkeys(instructions + sentences)
    while len(pool) < texts + candidates:
        first, last = (random_.choice(instructions).split() for _ in range(2))
        pool[" ".join(first[: random_.randint(2, 6)] + last[-random_.randint(3, 12) :])] = None
    shuffled = list(pool)
    random_.shuffle(shuffled)
    known, others = shuffled[:texts], shuffled[texts:][:candidates]
    vocabulary = sorted({word for text in instructions for word in text.split()})
    for place in range(0, candidates, 3):
        words = random_.choice(known).split()
        for changed in random_.sample(range(len(words)), round(len(words) * random_.random() / 2)):
            words[changed] = random_.choice(vocabulary)
        others[place] = " ".join(words)
    return known, others


def measure_novelty(
    texts: int, candidates: int, few: int, turns: int
) -> tuple[dict[str, Any], dict[str, float], dict[str, str]]:
    """Our index, then the naive loops."""
    known, asked = texts_and_candidates(texts, candidates, random.Random(0))
    # As rouge_score cuts them: it knows no letters but these.
    plain = [[re.sub(r"[^a-z0-9]+", " ", text.lower()) for text in each] for each in (known, asked)]
    warm = NoveltyIndex(THRESHOLD)
    warm.add("one text")
    warm.nearest("one text")
    building, asking = [], []
    for _ in range(turns):
        began = time.process_time()
        index = NoveltyIndex(THRESHOLD)
        for text in plain[0]:
            index.add(text)
        built = time.process_time()
        verdicts = [index.nearest(text) is not None for text in plain[1]]
        building.append(built - began)
        asking.append(time.process_time() - built)
    with tempfile.TemporaryDirectory() as folder:
        work, out = Path(folder) / "work.json", Path(folder) / "out.json"
        said = {"texts": plain[0], "candidates": plain[1], "threshold": THRESHOLD, "few": few}
        work.write_text(json.dumps(said), encoding="utf-8")
        peer = ROOT / "benchmarks" / "peers" / "novelty.py"
        subprocess.run([PEER_PYTHON, peer, work, out], check=True)
        theirs = json.loads(out.read_text(encoding="utf-8"))
    ours = 1000 * statistics.median(asking) / candidates
    figures: dict[str, Any] = {
        "texts": texts,
        "candidates": candidates,
        "alike": sum(verdicts),
        "milliseconds_a_candidate": round(ours, 4),
        "seconds_to_add_all_texts": [round(each, 3) for each in building],
    }
    ratios = {}
    for name in ("rouge_score", "rapidfuzz"):
        found = theirs[name]
        same = sum(a == b for a, b in zip(found["alike"], verdicts, strict=False))
        figures[name] = {
            "milliseconds_a_candidate": round(found["milliseconds"], 2),
            "candidates": found["candidates"],
            "same_verdicts": same,
        }
        ratios[f"novelty_milliseconds_vs_{name}"] = round(ours / found["milliseconds"], 6)
    return figures, ratios, theirs["versions"]


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=["calls", "novelty"], default=None)
    parser.add_argument("--windows", nargs="+", type=int, default=[16, 64])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--texts", type=int, default=50_000)
    parser.add_argument("--candidates", type=int, default=1_000)
    parser.add_argument("--few", type=int, default=20, help="candidates that rouge_score is given")
    args = parser.parse_args()
    parts = args.parts or ["calls", "novelty"]
    figures: dict[str, Any] = {}
    ratios: dict[str, float] = {}
    peers: dict[str, str] = {}
    if "calls" in parts:
        figures["calls"], ratios = measure_calls(args.windows, args.turns)
    if "novelty" in parts:
        if not PEER_PYTHON.exists():
            raise SystemExit("there is no .bench-venv. Run: make bench-peers")
        found = measure_novelty(args.texts, args.candidates, args.few, args.turns)
        figures["novelty"], peers = found[0], found[2]
        ratios |= found[1]
    print(json.dumps({"figures": figures, "peers": peers, "ratios": ratios}))


if __name__ == "__main__":
    main()
