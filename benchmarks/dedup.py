"""Near-duplicate removal beside the peers: quality on rows whose copies are known, and cost.

    python benchmarks/dedup.py [--rows 100000] [--repeats 3] [--peers rensa ...]

The rows are those of `labelled_rows`. Each measurement is a process of its own that reads the rows
from a file and writes down what it removed; cost is the CPU time of that whole process (start,
imports, reading, all of it) and its peak resident set. The tools take turns, so that a machine that
slows down slows all of them down. Peers run from `.bench-venv` (`make bench-peers`). The last line
printed is one JSON object.

A removed row counts as right when a row of its cluster stays; a cluster of which none stays is
wiped out. Precision is right removals of all removals, recall right removals of the rows to remove.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

from labelled_rows import LabelledRow, read_rows, write_rows

ROOT = Path(__file__).resolve().parent.parent
PEER = Path(__file__).resolve().parent / "peers" / "dedup.py"
PEERS = {
    "rensa": ("rensa", "--ngram", "1", "--threshold", "0.65"),
    "rensa at 0.6": ("rensa", "--ngram", "1", "--threshold", "0.6"),
    "rensa, 5-grams": ("rensa", "--ngram", "5", "--threshold", "0.7"),
    "datasketch": ("datasketch", "--ngram", "1", "--threshold", "0.65"),
    "datasketch, 5-grams": ("datasketch", "--ngram", "5", "--threshold", "0.7"),
}


def ours(path: Path, out: Path) -> None:
    """Deduplicate with llmkit in this process, from shards on disk as `llmkit prep` does."""
    import numpy as np
    import pyarrow as pa
    import xxhash

    from data_prep.dedup.deduplicate import DedupConfig, deduplicate
    from data_prep.dedup.minhash import MinHashConfig
    from data_prep.dedup.words import Texts, TextsInShards
    from data_prep.shards import Rows, Shards

    with tempfile.TemporaryDirectory() as folder, path.open(encoding="utf-8") as lines:
        shards, number = Shards(Path(folder)), 0
        hashes: list[bytes] = []
        while batch := list(islice(lines, 2048)):
            texts = [json.loads(line)["text"] for line in batch]
            hashes += [xxhash.xxh3_128_digest(text.encode()) for text in texts]
            shards.write(number, pa.table({"words": Texts.of(texts).to_arrow()}), {})
            number += 1
        keys = np.frombuffer(b"".join(hashes), np.uint64).reshape(-1, 2)
        source = TextsInShards(Rows(shards, number))
        config = DedupConfig(minhash=MinHashConfig())
        found = deduplicate(keys, source, config, np.arange(len(keys)))
    out.write_text(json.dumps(found.removed.tolist()))


def measure(command: list[str]) -> dict[str, float]:
    """Run a process to its end; its CPU seconds and its peak memory in MiB."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    return {"cpu_seconds": usage.ru_utime + usage.ru_stime, "memory_mib": usage.ru_maxrss / 1024}


def quality(rows: list[LabelledRow], removed: list[int]) -> dict[str, Any]:
    """Precision, recall and F1 of removals, wiped clusters, and what was removed of each kind."""
    sizes = Counter(row.cluster for row in rows)
    gone = Counter(rows[index].cluster for index in removed)
    right = sum(min(count, sizes[cluster] - 1) for cluster, count in gone.items())
    wanted = len(rows) - len(sizes)
    precision, recall = right / max(1, len(removed)), right / wanted
    kinds, removed_kinds = Counter(r.kind for r in rows), Counter(rows[i].kind for i in removed)
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / max(1e-9, precision + recall),
        "clusters_wiped": sum(gone[cluster] == size for cluster, size in sizes.items()),
        "removed_share": {kind: removed_kinds[kind] / kinds[kind] for kind in sorted(kinds)},
    }


def run(count: int, repeats: int, peers: list[str], scratch: Path) -> dict[str, Any]:
    """Measure every tool on one set of rows."""
    rows_path, out = scratch / f"rows-{count}.jsonl", scratch / "removed.json"
    write_rows(rows_path, count, seed=count)
    rows = read_rows(rows_path)
    python = ROOT / ".bench-venv" / "bin" / "python"
    script = str(Path(__file__).resolve())
    commands = {"llmkit": [sys.executable, script, "--ours", str(rows_path), str(out)]}
    for name in peers:
        tool, *options = PEERS[name]
        commands[name] = [str(python), str(PEER), tool, str(rows_path), str(out), *options]
    measure(commands["llmkit"])  # numba compiles once an installation, not once a run
    costs: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    found = {}
    for _ in range(repeats):
        for name, command in commands.items():
            costs[name].append(measure(command))
            found[name] = quality(rows, json.loads(out.read_text()))
    return {
        name: found[name]
        | {key: statistics.median(c[key] for c in costs[name]) for key in costs[name][0]}
        | {"cpu_seconds_each": [round(c["cpu_seconds"], 2) for c in costs[name]]}
        for name in commands
    }


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument(
        "--ours", nargs=2, type=Path, metavar=("ROWS", "OUT"), help=argparse.SUPPRESS
    )
    arguments = parser.parse_args()
    if arguments.ours:
        ours(*arguments.ours)
        return
    figures, ratios = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        for count in arguments.rows:
            found = run(count, arguments.repeats, arguments.peers, Path(scratch))
            figures[str(count)] = found
            for name, each in found.items():
                print(
                    f"{count:>9,} {name:<20} F1 {each['f1']:.4f}"
                    f" (precision {each['precision']:.4f}, recall {each['recall']:.4f}),"
                    f" wiped {each['clusters_wiped']},"
                    f" twins gone {each['removed_share'].get('twin', 0):.1%},"
                    f" {each['cpu_seconds']:.1f} CPU s, {each['memory_mib']:.0f} MiB"
                )
                if name != "llmkit":
                    ours_, key = (
                        found["llmkit"],
                        f"{name}_{count}".replace(" ", "_").replace(",", ""),
                    )
                    ratios[f"cpu_seconds_vs_{key}"] = ours_["cpu_seconds"] / each["cpu_seconds"]
                    ratios[f"peak_memory_vs_{key}"] = ours_["memory_mib"] / each["memory_mib"]
                    ratios[f"f1_minus_{key}"] = ours_["f1"] - each["f1"]
    print(json.dumps({"figures": figures, "peers": _versions(), "ratios": ratios}))


def _versions() -> dict[str, str]:
    python = ROOT / ".bench-venv" / "bin" / "python"
    code = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({n: m.version(n) for n in ('rensa', 'datasketch')}))"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


if __name__ == "__main__":
    main()
