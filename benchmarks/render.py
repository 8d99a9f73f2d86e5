"""Rendering and tokenising beside TRL's own preparation, on the same rows, in one run.

    python benchmarks/render.py --rows alpaca.json sharegpt.json [--repeats 3] [--model FOLDER]

Two cases: ``answers``, conversations through the chat template with only assistant turns
supervised (TRL: ``assistant_only_loss``), and ``text``, plain text learned as a whole. From rows
in memory to ids and masks in an Arrow table. Each measurement is a process of its own, and the
sides take turns, so that a machine that slows down slows all down; TRL runs with one and with two
workers, from `.bench-venv` (`make bench-peers`) where it is there. CPU seconds are those of all
threads and workers. Ids and masks of every row are compared between the sides. The last line
printed is one JSON object.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PEER = Path(__file__).resolve().parent / "peers" / "trl_render.py"
CASES = ("answers", "text")
SIDES = ("llmkit", "trl, 1 worker", "trl, 2 workers")


def ours(case: str, rows_path: Path, out: Path, model: Path) -> dict[str, float]:
    """Render with llmkit in this process."""
    import pyarrow as pa

    from data_prep.chat_templates import load_template
    from data_prep.rendering import Rendered, render
    from data_prep.rows import Conversation, Message, Row, Text
    from data_prep.tokenizer import load_tokenizer

    rows: list[Row] = []
    for line in rows_path.read_text(encoding="utf-8").split("\n")[:-1]:
        record = json.loads(line)
        if case == "text":
            rows.append(Text(record["text"]))
        else:
            rows.append(Conversation(tuple(Message(**turn) for turn in record["messages"])))
    template = load_template("keep", load_tokenizer(model))
    cpu, wall = sum(os.times()[:4]), time.perf_counter()
    found = [row for row in render(rows, template) if isinstance(row, Rendered)]
    columns = {
        "input_ids": pa.array([row.ids for row in found], pa.list_(pa.int32())),
        "supervised": pa.array([row.supervised for row in found], pa.list_(pa.bool_())),
    }
    table = pa.table(columns)
    spent = {
        "cpu_seconds": sum(os.times()[:4]) - cpu,
        "wall_seconds": time.perf_counter() - wall,
        "tokens": len(table["input_ids"].combine_chunks().flatten()),
    }
    masks = ([int(flag) for flag in row.supervised[1:]] for row in found)
    lines = (json.dumps([row.ids.tolist(), mask]) for row, mask in zip(found, masks, strict=True))
    out.write_text("\n".join(lines))
    return spent


def write_rows(sources: list[Path], model: Path, folder: Path) -> int:
    """Write the rows that the model's template can render, once for each case; their number."""
    from data_prep.chat_templates import load_template
    from data_prep.reading import ReadRow, read_rows
    from data_prep.rendering import Rendered, render
    from data_prep.rows import Conversation
    from data_prep.sources.config import SourceConfig
    from data_prep.tokenizer import load_tokenizer

    template = load_template("keep", load_tokenizer(model))
    rows = []
    for source in sources:
        read = list(read_rows(SourceConfig(path=str(source)), "merge"))
        good = [r.row for r in read if isinstance(r, ReadRow) and isinstance(r.row, Conversation)]
        fit = [
            row
            for row, found in zip(good, render(good, template), strict=True)
            if isinstance(found, Rendered)
        ]
        print(f"{source.name}: {len(fit)} of {len(read)} rows")
        rows += fit
    dicts = [row.as_dicts() for row in rows]
    texts = ["\n\n".join(turn["content"] for turn in turns) for turns in dicts]
    records = {
        "answers": [{"messages": turns} for turns in dicts],
        "text": [{"text": text} for text in texts],
    }
    for case, each in records.items():
        lines = "".join(json.dumps(record) + "\n" for record in each)
        (folder / f"{case}.jsonl").write_text(lines, encoding="utf-8")
    return len(rows)


def measured(command: list[str]) -> dict[str, float]:
    """Run one side in a process of its own; its last line is its figures."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    figures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def compare(case: str, repeats: int, model: Path, folder: Path) -> dict[str, Any]:
    """Take turns; every side's medians, and how many rows differ from ours."""
    peer_python = ROOT / ".bench-venv" / "bin" / "python"
    python = str(peer_python) if peer_python.is_file() else sys.executable
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    made: dict[str, list[str]] = {}
    for turn in range(repeats):
        for side in SIDES:
            out = folder / "ids-and-masks.jsonl"
            words = [case, str(folder / f"{case}.jsonl"), str(out), "--model", str(model)]
            command = [sys.executable, str(Path(__file__).resolve()), "--ours", *words]
            if side != "llmkit":
                command = [python, str(PEER), *words, "--workers", side.split()[1]]
            found[side].append(measured(command))
            made[side] = out.read_text().split("\n")
            cpu, wall = found[side][-1]["cpu_seconds"], found[side][-1]["wall_seconds"]
            print(f"{case} turn {turn + 1} {side}: {cpu:.2f} CPU s, {wall:.2f} s", flush=True)
    return {
        side: {key: statistics.median(each[key] for each in runs) for key in runs[0]}
        | {"cpu_seconds_each": [round(each["cpu_seconds"], 2) for each in runs]}
        | {"rows": len(made[side])}
        | {"rows_unlike_ours": sum(map(str.__ne__, made[side], made["llmkit"]))}
        for side, runs in found.items()
    }


def main() -> None:
    """Measure, print what happens, and end with one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=lambda p: Path(p).resolve(), nargs="+")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument(
        "--model", type=Path, help="whose tokenizer, with SmolLM2's template; SmolLM2 without it"
    )
    parser.add_argument("--ours", nargs=3, metavar=("CASE", "ROWS", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ours:
        case, rows_path, out = arguments.ours
        print(json.dumps(ours(case, Path(rows_path), Path(out), arguments.model)))
        return
    if not arguments.rows:
        parser.error("the following arguments are required: --rows")
    from llmkit.models.catalog import resolve

    model = arguments.model or resolve("smollm2-135m-instruct").folder
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = write_rows(arguments.rows, model, folder)
        figures = {
            case: compare(case, arguments.repeats, model, folder) for case in arguments.cases
        }
    ratios = {}
    for case, sides in figures.items():
        for side in SIDES[1:]:
            against = f"{case}_{{}}_vs_{side.replace(', ', '_').replace(' ', '_')}"
            for key in ("cpu_seconds", "wall_seconds"):
                ratio = sides["llmkit"][key] / sides[side][key]
                ratios[against.format(key)] = round(ratio, 3)
    packages = ("trl", "transformers", "datasets", "tokenizers")
    versions = {package: importlib.metadata.version(package) for package in packages}
    figures = {"rows": rows} | figures
    print(json.dumps({"figures": figures, "peers": versions, "ratios": ratios}))


if __name__ == "__main__":
    main()
