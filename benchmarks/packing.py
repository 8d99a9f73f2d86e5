"""Packing beside TRL and first-fit: how full packs are, what is discarded or cut, and the cost.

    python benchmarks/packing.py --data FOLDER [--rows 20000 1000000] [--capacities 512 2048]

Sets: every file below FOLDER that has rows to train on, and all of them together; lognormal lengths
(median 150 tokens), so many rows each; and a long-tailed set of 20,000 conversations. Each tool
packs all sets of a group (real, and each drawn one) in a process of its own, at each capacity.

Tools: llmkit after `overlong: truncate` (what TRL's bfd does), after `overlong: split` with every
token supervised (TRL keeps them all), and after `split` with answers alone supervised, where pieces
of a prompt that would teach nothing are left out; TRL's bfd, bfd_split and wrapped; after the split
of every token, first-fit in the rows' order, and best-fit-decreasing over the whole set as a plain
Python loop, whose packs llmkit must not exceed.

Packing CPU seconds are those of the call alone, with one-byte tokens moved into packs, as TRL's
function does; llmkit's hold the splitting of rows too. Beside them are the whole process's, the
seconds of llmkit's `pack` by itself, and those that a process's first call takes to load what numba
compiled. The last line printed is one JSON object.
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray
from row_lengths import RowSet, lognormal, real_sets

from data_prep.overlong import cut_places, fit, turn_ends
from data_prep.packing import fewest_packs, pack

ROOT = Path(__file__).resolve().parent.parent
PEER = Path(__file__).resolve().parent / "peers" / "trl_packing.py"
TRL = {"trl bfd": "bfd", "trl bfd_split": "bfd_split", "trl wrapped": "wrapped"}
_SPLIT_BY = {"llmkit": "split", "llmkit answers": "split_answers"}
"""Where the figures of what was split before packing are."""
WINDOW = 1000
"""Rows that TRL packs at a time: the batches of `datasets.Dataset.map`."""


def split_rows(
    rows: RowSet, capacity: int, *, everything: bool
) -> tuple[NDArray[np.int64], dict[str, float]]:
    """The lengths after `overlong: split`, and what it did and cost.

    Args:
        rows: their answers are supervised.
        capacity: the most tokens a piece may have.
        everything: whether every token but a row's first is supervised instead.
    """
    pieces = [rows.lengths[rows.lengths <= capacity]]
    done = dict.fromkeys((*_SPLIT_FIGURES, "split_cpu_seconds"), 0.0)
    for index in np.flatnonzero(rows.lengths > capacity).tolist():
        row = rows.row(index)
        turns = turn_ends(row)
        if everything:
            row = replace(row, supervised=np.arange(len(row.ids)) > 0)
        began = time.process_time()
        fitted = fit(row, capacity, "split")
        done["split_cpu_seconds"] += time.process_time() - began
        pieces.append(np.array([len(piece.ids) for piece in fitted.pieces], np.int64))
        taught = sum(int(piece.supervised.sum()) for piece in fitted.pieces)
        done["discarded_tokens"] += len(row.ids) - int(pieces[-1].sum())
        # The first token of a piece is never a target, and still in the piece.
        done["discarded_supervised_tokens"] += int(row.supervised.sum()) - taught
        ours, theirs = cut_places(row, capacity)[:-1], range(capacity, len(row.ids), capacity)
        for name, cuts in (("cuts", ours), ("trl_split_cuts", theirs)):
            done[name] += len(cuts)
            done[f"{name}_inside_turns"] += len(set(cuts) - set(turns.tolist()))
        lengths = np.diff(np.concatenate(([0], turns, [len(row.ids)])))
        done["turns_over_capacity"] += int((lengths > capacity).sum())
    return np.concatenate(pieces), done


_SPLIT_FIGURES = (
    "discarded_tokens",
    "discarded_supervised_tokens",
    "cuts",
    "cuts_inside_turns",
    "trl_split_cuts",
    "trl_split_cuts_inside_turns",
    "turns_over_capacity",
)


def wrapped_cuts(lengths: NDArray[np.int64], capacity: int) -> int:
    """How often TRL's wrapped packing cuts rows: borders of packs that are no row's end."""
    cuts = 0
    for first in range(0, len(lengths), WINDOW):
        ends = np.cumsum(lengths[first : first + WINDOW])
        cuts += len(np.setdiff1d(np.arange(capacity, ends[-1], capacity), ends))
    return cuts


@njit(cache=True)
def first_fit(lengths: NDArray[np.int64], capacity: int) -> int:
    """Packs of first-fit in the rows' order: a tree of the most room below each node."""
    size = 1
    while size < len(lengths):
        size *= 2
    room = np.full(2 * size, capacity)
    packs = 0
    for length in lengths:
        node = 1
        while node < size:
            node = 2 * node if room[2 * node] >= length else 2 * node + 1
        packs = max(packs, node - size + 1)
        room[node] -= length
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    return packs


def plain_best_fit_decreasing(lengths: list[int], capacity: int) -> int:
    """Packs of best-fit-decreasing over all rows; the rooms that packs have are bits of an int."""
    packs, rooms, count = 0, 0, [0] * (capacity + 1)
    for length in sorted(lengths, reverse=True):
        fitting = rooms >> length
        room = length + (fitting & -fitting).bit_length() - 1 if fitting else capacity
        if fitting:
            count[room] -= 1
            rooms &= ~(1 << room) if not count[room] else -1
        else:
            packs += 1
        if left := room - length:
            count[left] += 1
            rooms |= 1 << left
    return packs


def side(tool: str, folder: Path, out: Path, capacities: list[int]) -> None:
    """Pack every set of a folder with one tool, in this process."""
    found = {}
    began = time.process_time()
    pack([1], 2)
    first_fit(np.array([1]), 2)
    load = time.process_time() - began
    for path in sorted(folder.glob("*.npy")):
        *_, capacity = path.stem.rsplit("@", 1)
        if int(capacity) not in capacities:
            continue
        lengths = np.load(path)
        tokens = int(lengths.sum())
        figures: dict[str, Any] = {"tokens": tokens, "load_cpu_seconds": load}
        if tool == "llmkit":
            values = pa.array(np.zeros(tokens, np.int8))
            offsets = pa.array(np.concatenate(([0], np.cumsum(lengths))), pa.int32())
            rows = pa.ListArray.from_arrays(offsets, values)
            began = time.process_time()
            packs = pack(lengths, int(capacity))
            figures["pack_cpu_seconds"] = time.process_time() - began
            moved = rows.take(pa.array(packs.rows))
            begins = pa.array(np.concatenate(([0], np.cumsum(packs.tokens))), pa.int32())
            assert len(pa.ListArray.from_arrays(begins, moved.values)) == len(packs)
            figures["packs"] = len(packs)
        elif tool == "first-fit":
            began = time.process_time()
            figures["packs"] = first_fit(lengths, int(capacity))
        else:
            began = time.process_time()
            figures["packs"] = plain_best_fit_decreasing(lengths.tolist(), int(capacity))
        figures["packing_cpu_seconds"] = time.process_time() - began
        found[path.stem.replace("@", "/")] = figures
    out.write_text(json.dumps(found))


def measure(command: list[str]) -> dict[str, float]:
    """Run a process to its end; its CPU seconds and its peak memory in MiB."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    return {
        "process_cpu_seconds": usage.ru_utime + usage.ru_stime,
        "process_memory_mib": usage.ru_maxrss / 1024,
    }


def run_group(sets: list[RowSet], capacities: list[int], scratch: Path) -> dict[str, Any]:
    """Measure every tool on a group of sets: figures by set and capacity, then by tool."""
    figures: dict[str, Any] = {}
    folders = {name: scratch / name for name in ("raw", "truncated", "split", "answers")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    for rows in sets:
        np.save(folders["raw"] / f"{rows.name}.npy", rows.lengths)
        for capacity in capacities:
            name = f"{rows.name}@{capacity}.npy"
            cut = np.minimum(rows.lengths, capacity)
            np.save(folders["truncated"] / name, cut)
            pieces, done = split_rows(rows, capacity, everything=True)
            np.save(folders["split"] / name, pieces)
            answers, answers_done = split_rows(rows, capacity, everything=False)
            np.save(folders["answers"] / name, answers)
            figures[f"{rows.name}/{capacity}"] = {
                "rows": len(rows.lengths),
                "tokens": int(rows.lengths.sum()),
                "split": done,
                "split_answers": answers_done,
                "wrapped_cuts_inside_rows": wrapped_cuts(rows.lengths, capacity),
                "fewest_packs_possible": fewest_packs(pieces, capacity),
                "tools": {},
            }
    wanted = [str(capacity) for capacity in capacities]
    own = [sys.executable, __file__]
    commands = {
        "llmkit": [*own, "--side", "llmkit", str(folders["split"])],
        "llmkit answers": [*own, "--side", "llmkit", str(folders["answers"])],
        "llmkit truncate": [*own, "--side", "llmkit", str(folders["truncated"])],
        "plain bfd": [*own, "--side", "plain", str(folders["split"])],
        "first-fit": [*own, "--side", "first-fit", str(folders["split"])],
    }
    for name, strategy in TRL.items():
        commands[name] = [_peer_python(), str(PEER), strategy, str(folders["raw"])]
    out = scratch / "out.json"
    for tool, command in commands.items():
        last = [str(out), *wanted] if tool in TRL else [str(out), "--capacities", *wanted]
        cost = measure([*command, *last])
        for name, found in json.loads(out.read_text()).items():
            all_tokens = figures[name]["tokens"]
            found["efficiency"] = found["tokens"] / (found["packs"] * int(name.split("/")[1]))
            found["discarded_tokens"] = all_tokens - found["tokens"]
            if tool in _SPLIT_BY:
                split = figures[name][_SPLIT_BY[tool]]
                found["packing_cpu_seconds"] += split["split_cpu_seconds"]
            figures[name]["tools"][tool] = found | cost
    return figures


def _peer_python() -> str:
    """TRL is the product's own dependency; a `.bench-venv` holds the same version."""
    python = ROOT / ".bench-venv" / "bin" / "python"
    return str(python) if python.is_file() else sys.executable


def ratios_of(figures: dict[str, Any]) -> dict[str, float]:
    """Ours by theirs. TRL's bfd truncates, so it is compared with packing of truncated rows."""
    ratios = {}
    for name, found in figures.items():
        tools, key = found["tools"], name.replace("/", "_").replace("-", "_")
        for tool, theirs in tools.items():
            if tool.startswith("llmkit"):
                continue
            ours = tools["llmkit truncate" if tool == "trl bfd" else "llmkit"]
            label = f"{tool.replace(' ', '_').replace('-', '_')}_{key}"
            if tool not in TRL:  # they move no tokens
                ours = ours | {"packing_cpu_seconds": ours["pack_cpu_seconds"]}
            for figure in ("efficiency", "packing_cpu_seconds", "process_cpu_seconds"):
                ratios[f"{figure}_vs_{label}"] = ours[figure] / theirs[figure]
        for tool in TRL:
            lost = tools[tool]["discarded_tokens"] - tools["llmkit"]["discarded_tokens"]
            ratios[f"discarded_share_less_than_{tool.replace(' ', '_')}_{key}"] = (
                lost / found["tokens"]
            )
        ours, best = tools["llmkit"]["packs"], tools["plain bfd"]["packs"]
        ratios[f"packs_vs_global_bfd_{key}"] = ours / best
    return ratios


def totals(figures: dict[str, Any]) -> dict[str, float]:
    """What splitting discarded of all sets at all capacities."""
    named = {
        "tokens_discarded_split": ("split", "discarded_tokens"),
        "tokens_discarded_split_answers_only": ("split_answers", "discarded_tokens"),
        "supervised_tokens_discarded_split_answers_only": (
            "split_answers",
            "discarded_supervised_tokens",
        ),
    }
    return {
        name: sum(found[kind][figure] for found in figures.values())
        for name, (kind, figure) in named.items()
    }


def show(name: str, found: dict[str, Any]) -> None:
    """Print a set's lines."""
    split, answers = found["split"], found["split_answers"]
    print(
        f"{name}: {found['rows']:,} rows, {found['tokens']:,} tokens; at least "
        f"{found['fewest_packs_possible']:,} packs. Split: {split['cuts']:.0f} cuts, "
        f"{split['cuts_inside_turns']:.0f} of them inside the {split['turns_over_capacity']:.0f} "
        f"turns that are too long (trl bfd_split: {split['trl_split_cuts']:.0f}, "
        f"{split['trl_split_cuts_inside_turns']:.0f} inside turns; wrapped cuts rows "
        f"{found['wrapped_cuts_inside_rows']:,} times). Discarded: {split['discarded_tokens']:.0f} "
        f"tokens; {answers['discarded_tokens']:.0f}, of them "
        f"{answers['discarded_supervised_tokens']:.0f} supervised, where answers alone are"
    )
    for tool, each in found["tools"].items():
        alone = (
            f" (pack alone {each['pack_cpu_seconds']:.3f})" if "pack_cpu_seconds" in each else ""
        )
        print(
            f"    {tool:<16} {each['packs']:>9,} packs, efficiency {each['efficiency']:.4f}, "
            f"discarded {each['discarded_tokens'] / found['tokens']:6.2%}, "
            f"{each['packing_cpu_seconds']:7.3f} CPU s{alone}"
        )


def main() -> None:
    """Measure, print, and end with one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder of real files; none without it")
    parser.add_argument("--rows", type=int, nargs="*", default=[20_000, 1_000_000])
    parser.add_argument("--capacities", type=int, nargs="+", default=[512, 2048])
    parser.add_argument(
        "--side", nargs=3, metavar=("TOOL", "FOLDER", "OUT"), help=argparse.SUPPRESS
    )
    arguments = parser.parse_args()
    if arguments.side:
        tool, folder, out = arguments.side
        side(tool, Path(folder), Path(out), arguments.capacities)
        return
    first_fit(np.array([1]), 2)  # numba compiles once an installation, not once a run
    pack([1], 2)
    cut_places(lognormal("one", 1, 150, 0.8).row(0), 16)
    groups = [[lognormal(f"lognormal_{count}", count, 150, 0.8)] for count in arguments.rows]
    groups.append([lognormal("long_tailed", 20_000, 300, 1.3, turns=True)])
    if arguments.data:
        how, real = real_sets(arguments.data)
        print(f"tokens of real rows: {how}")
        groups.insert(0, [*real, _together(real)])
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for index, sets in enumerate(groups):
            found = run_group(sets, arguments.capacities, Path(scratch) / str(index))
            for name, each in found.items():
                show(name, each)
            figures |= found
    peers = {name: importlib.metadata.version(name) for name in ("trl", "datasets", "pyarrow")}
    print(
        json.dumps(
            {"figures": figures | totals(figures), "peers": peers, "ratios": ratios_of(figures)}
        )
    )


def _together(sets: list[RowSet]) -> RowSet:
    lengths = np.concatenate([each.lengths for each in sets])
    places = [(each, index) for each in sets for index in range(len(each.lengths))]
    return RowSet("all_real", lengths, lambda index: places[index][0].row(places[index][1]))


if __name__ == "__main__":
    main()
