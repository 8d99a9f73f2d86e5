"""Near-duplicate removal beside the peers: quality on rows whose copies are known, and cost.

    python benchmarks/dedup.py [--rows 100000 1000000] [--repeats 2] [--peers rensa ...]

The rows are those of `labelled_rows`; after them, the short instructions of `paraphrased_rows`
alone, where only a method that reads for meaning can tell a paraphrase from another request. Each
measurement is a process of its own that reads the rows from a file and writes down what it removed;
cost is the CPU time of that whole process (start, imports, reading, all of it) and its peak
resident set. The tools take turns, so that a machine that slows down slows all of them down; slow
peers have one turn. llmkit's certificates are replayed outside the measured process. Peers run from
`.bench-venv` (`make bench-peers`). The last line printed is one JSON object.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import our_dedup
from dedup_goals import goals
from dedup_quality import Quality, quality
from labelled_rows import LabelledRow, read_rows, write_paraphrases, write_rows

ROOT = Path(__file__).resolve().parent.parent
OURS = ROOT / "benchmarks" / "our_dedup.py"
PEER = ROOT / "benchmarks" / "peers" / "dedup.py"
WATCH = ROOT / "benchmarks" / "watch.py"
PEER_PYTHON = ROOT / ".bench-venv" / "bin" / "python"
PACKAGES = ("rensa", "datasketch", "text-dedup", "datatrove", "semhash", "model2vec")


@dataclass(frozen=True)
class Peer:
    """A tool with settings."""

    options: str
    most_rows: int = 100_000
    """It is not measured on more."""
    slow: bool = True
    """It is measured once, whatever ``--repeats`` says."""


FIVE = "--ngram 5 --threshold 0.7"
PEERS = {
    # Sets of words, at the best settings that a few tries on 20,000 such rows found.
    "rensa": Peer("rensa --threshold 0.6", most_rows=10_000_000, slow=False),
    "datasketch": Peer("datasketch --threshold 0.65", most_rows=1_000_000),
    "text_dedup": Peer("text_dedup --threshold 0.7"),
    "datatrove": Peer("datatrove --bands 24 --band-rows 8 --keep-numbers"),
    "semhash": Peer("semhash --threshold 0.99"),
    # As everybody sets them.
    "rensa_5grams": Peer(f"rensa {FIVE}", slow=False),
    "datasketch_5grams": Peer(f"datasketch {FIVE}"),
    "text_dedup_5grams": Peer(f"text_dedup {FIVE}"),
    "datatrove_5grams": Peer("datatrove --ngram 5 --bands 14 --band-rows 8"),
}
SHORT_PEERS = {
    "semhash_0.9": "semhash --threshold 0.9",
    "semhash_0.8": "semhash --threshold 0.8",
    "semhash_minilm_0.9": "semhash --threshold 0.9 --model MINILM",
    "semhash_minilm_0.8": "semhash --threshold 0.8 --model MINILM",
    "rensa": PEERS["rensa"].options,
    "datasketch": PEERS["datasketch"].options,
    "text_dedup": PEERS["text_dedup"].options,
    "datatrove": PEERS["datatrove"].options,
}
"""On short instructions alone; MiniLM is the model that llmkit takes."""
SHORT_OURS = {
    "llmkit_exact": "exact",
    "llmkit": "minhash",
    "llmkit_semantic_0.95": "semantic",
    "llmkit_semantic_0.9": "semantic --threshold 0.9",
    "llmkit_semantic_0.8": "semantic --threshold 0.8",
    "llmkit_minhash_semantic": "minhash-semantic",
}


def measure(command: list[str]) -> dict[str, float]:
    """Run a process to its end; its CPU seconds and its peak memory in MiB."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    watched = [sys.executable, str(WATCH), *command]
    done = subprocess.run(watched, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return dict(json.loads(done.stdout))


def run(
    path: Path, tools: dict[str, tuple[list[str], int]], out: Path
) -> tuple[list[LabelledRow], dict[str, dict[str, Any]]]:
    """Measure tools on one file of rows.

    Args:
        path: the rows.
        tools: by name, the start of a command, and how often it is run.
        out: where removed rows are written; llmkit's stay in files named after it.

    Returns:
        The rows, and each tool's figures.
    """
    rows = read_rows(path)
    costs: dict[str, list[dict[str, float]]] = {name: [] for name in tools}
    found: dict[str, Quality] = {}
    for turn in range(max(times for _, times in tools.values())):
        for name, (command, times) in tools.items():
            if turn < times:
                written = out.with_stem(f"{out.stem}-{name}")
                costs[name].append(measure([*command[:3], str(path), str(written), *command[3:]]))
                found[name] = quality(rows, json.loads(written.read_text()))
                print(f"  {name}: {costs[name][-1]}", file=sys.stderr, flush=True)
    figures = {
        name: found[name].as_dict()
        | {key: statistics.median(c[key] for c in costs[name]) for key in costs[name][0]}
        | {"cpu_seconds_each": [round(c["cpu_seconds"], 2) for c in costs[name]]}
        for name in tools
    }
    return rows, figures


def on_many_rows(count: int, repeats: int, peers: list[str], scratch: Path) -> dict[str, Any]:
    """Quality and cost on rows of some 130 words."""
    path, out = scratch / f"rows-{count}.jsonl", scratch / f"{count}.json"
    write_rows(path, count, seed=count)
    tools = {"llmkit": (_ours("minhash"), repeats), "llmkit_exact": (_ours("exact"), repeats)}
    for name in peers:
        peer = PEERS[name]
        if count <= peer.most_rows:
            tools[name] = (_peer(peer.options), 1 if peer.slow else repeats)
    rows, figures = run(path, tools, out)
    ours = out.with_stem(f"{out.stem}-llmkit")
    figures["llmkit_same_words"] = quality(
        rows, our_dedup.removed_for(ours, "same words")
    ).as_dict()
    number, problems = our_dedup.replay([row.text for row in rows], ours)
    figures["llmkit"] |= {"certificates": number, "certificates_that_do_not_hold": len(problems)}
    for problem in problems[:5]:
        print(f"  {problem}", file=sys.stderr)
    return figures


def on_short_rows(peers: list[str], scratch: Path) -> dict[str, Any]:
    """What each tool does to short instructions, their paraphrases and what only looks alike."""
    from llmkit.models.catalog import resolve

    path = scratch / "short.jsonl"
    write_paraphrases(path, seed=1)
    minilm = str(resolve("all-minilm-l6-v2").folder)
    tools = {name: (_ours(options), 1) for name, options in SHORT_OURS.items()}
    for name, options in SHORT_PEERS.items():
        if name.split("_0")[0].removesuffix("_minilm") in peers:
            tools[name] = (_peer(options.replace("MINILM", minilm)), 1)
    return run(path, tools, scratch / "short.json")[1]


def _compile(scratch: Path) -> None:
    """Let numba compile: it does so once an installation, not once a run."""
    path = scratch / "first.jsonl"
    write_paraphrases(path, seed=0)
    measure([*_ours("minhash")[:3], str(path), str(scratch / "first.json")])


def _ours(options: str) -> list[str]:
    return [sys.executable, str(OURS), *options.split()]


def _peer(options: str) -> list[str]:
    return [str(PEER_PYTHON), str(PEER), *options.split()]


def ratios(figures: dict[str, dict[str, Any]], suffix: str) -> dict[str, float]:
    """What llmkit needs and finds, beside every peer."""
    found = {}
    ours = figures["llmkit"]
    for name, each in figures.items():
        if not name.startswith("llmkit"):
            key = name + suffix
            found[f"cpu_seconds_vs_{key}"] = ours["cpu_seconds"] / each["cpu_seconds"]
            found[f"peak_memory_vs_{key}"] = ours["memory_mib"] / each["memory_mib"]
            found[f"f1_minus_{key}"] = ours["f1"] - each["f1"]
    return found


def show(title: str, figures: dict[str, dict[str, Any]]) -> None:
    """Print a table."""
    print(title)
    for name, each in figures.items():
        cost = "no cost of its own"
        if "cpu_seconds" in each:
            cost = f"{each['cpu_seconds']:.1f} CPU s, {each['memory_mib']:.0f} MiB"
        kinds = [f"{kind} {share:.1%}" for kind, share in (each["found"] | each["lost"]).items()]
        print(
            f"{name:<24} F1 {each['f1']:.4f} (but for twins {each['f1_but_for_twins']:.4f}),"
            f" precision {each['precision']:.4f}, recall {each['recall']:.4f},"
            f" wiped {each['clusters_wiped']}, {cost}; {', '.join(kinds)}"
        )


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--no-short-rows", action="store_true", help="leave the second part out")
    arguments = parser.parse_args()
    figures, compared = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _compile(folder)
        if not arguments.no_short_rows:
            figures["short"] = on_short_rows(arguments.peers, folder)
            show("short instructions", figures["short"])
        for count in arguments.rows:
            found = on_many_rows(count, arguments.repeats, arguments.peers, folder)
            figures[str(count)] = found
            show(f"{count:,} rows", found)
            compared |= ratios(found, SUFFIXES.get(count, f"_{count}"))
    reached = goals(figures)
    for goal in reached:
        print(goal)
    versions = _versions() if arguments.peers else {}
    described = [goal.as_dict() for goal in reached]
    print(
        json.dumps({"figures": figures, "peers": versions, "goals": described, "ratios": compared})
    )


SUFFIXES = {100_000: "", 1_000_000: "_1m"}
"""Of the names of ratios."""


def _versions() -> dict[str, str]:
    code = (
        "import importlib.metadata as m, json, sys;"
        "print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    )
    command = [PEER_PYTHON, "-c", code, *PACKAGES]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


if __name__ == "__main__":
    main()
