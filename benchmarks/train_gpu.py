r"""QLoRA of a 7B model on a GPU beside TRL: tokens a second and peak memory, in one run.

    python benchmarks/train_gpu.py [--wheels DIR] [--repeats 2] [--steps 12] [--optimizer ...]
    python benchmarks/train_gpu.py --shape tiny        seconds, on a CPU too

A model of Mistral-7B's shape with random weights, NF4 with double quantisation, LoRA of rank 64 on
all linear layers, rows of up to 2,048 tokens, packed, gradient checkpointing on. llmkit, TRL packed
(best-fit-decreasing, no padding) and TRL unpacked train every row once, in turns, each in a process
of its own. All load the same model folder, 14.5 GB of bfloat16 that is drawn on the device from a
seed and written once below --folder: `llmkit train` reads its base from a folder, and what people
run is what is measured. The last line printed is one JSON object.

Tokens a second count every token that is not padding, after two warm-up steps. `peak_gib` is what
tensors held at most (torch.cuda.max_memory_allocated), from loading to saving; on a CPU it is the
resident memory. `peak_reserved_gib` is what the allocator took for them: what a card must have
besides the context. With --card-gib it is held to a smaller card's memory. A side that runs out of
memory is reported as such. Losses are printed a step: random weights know nothing, so they start
near ln(32,000) = 10.37 on every side.

It runs where nothing can be downloaded, given torch, transformers, peft, accelerate and what these
need. What is missing there besides lies as wheels in --wheels. Collect them elsewhere, for the
Python that will run this (here 3.12):

    python -m pip download --no-deps --only-binary=:all: --python-version 3.12 \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_24_x86_64 \
        --platform manylinux2014_x86_64 -d DIR \
        bitsandbytes==0.50.2 trl==1.16.0 datasets==5.2.0 dill==0.4.1 multiprocess==0.70.19 \
        pydantic==2.14.3 pydantic-core==2.50.4 annotated-types typing-inspection

and pyarrow, pandas, python-dateutil, jinja2 or xxhash where those are missing too. llmkit is taken
from the checkout that this file lies in; its training needs pydantic, pyarrow, psutil, jinja2 and
xxhash, and packs without numba where that is not installed.
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
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TRAINED = ("llmkit", "trl_packed", "trl_unpacked")
WARM_UP = 2
OPTIMIZERS = ("adamw", "adamw_8bit", "paged_adamw_8bit")
PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "trl", "datasets")
NEEDED = (*PACKAGES, "pydantic", "pyarrow", "psutil", "jinja2", "xxhash")

Turns = dict[str, list[dict[str, Any]]]
"""The figures of every side, turn by turn."""


def unpack(wheels: Path, folder: Path) -> None:
    """Make the packages of a folder of wheels importable from another folder.

    Raises:
        SystemExit: there are none, or one is of another Python or machine.
    """
    from packaging.tags import sys_tags
    from packaging.utils import parse_wheel_filename

    fitting, found = set(sys_tags()), sorted(wheels.glob("*.whl"))
    if not found:
        raise SystemExit(f"--wheels {wheels}: no wheels there. How to collect them: --help.")
    for path in found:
        if not fitting & parse_wheel_filename(path.name)[3]:
            version = ".".join(map(str, sys.version_info[:2]))
            raise SystemExit(
                f"{path}: not for Python {version} on this machine. Download it with "
                f"--python-version {version} and this machine's --platform."
            )
        with zipfile.ZipFile(path) as file:
            file.extractall(folder)
    for data in folder.glob("*.data"):  # what a wheel puts beside its packages
        for part in data.glob("*lib/*"):
            part.rename(folder / part.name)


def measured(side: str, job: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    """Run one side in a process of its own; its last line is its figures.

    A side that fails is told and left out: a machine with a GPU is not had twice a day.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=job["folder"]) as scratch:
        given = json.dumps(job | {"scratch": scratch})
        done = subprocess.run(
            [sys.executable, str(HERE / "train_gpu.py"), "--side", side, "--job", given],
            cwd=scratch,
            env=environment,
            capture_output=True,
            text=True,
        )
    if done.returncode:
        print(f"{side} failed:\n{done.stderr[-3000:]}", flush=True)
        return {"failed": (done.stderr.strip().splitlines() or ["without a word"])[-1]}
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures | {"process_seconds": round(time.monotonic() - began, 1)}


def in_turns(
    job: dict[str, Any], sides: list[str], repeats: int, environment: dict[str, str]
) -> Turns:
    """Every side as often as asked for, one after the other, so that all see the same machine."""
    found: Turns = {side: [] for side in sides}
    for turn in range(repeats):
        for side in sides:
            figures = measured(side, job, environment)
            found[side].append(figures)
            told = {name: value for name, value in figures.items() if name != "losses"}
            print(f"turn {turn + 1} {side}: {json.dumps(told)}", flush=True)
            print(f"turn {turn + 1} {side} losses: {figures.get('losses', [])}", flush=True)
    return found


def ratios(found: Turns) -> dict[str, float | None]:
    """Ours over each peer's, the median over turns; None where a side has no figure."""
    titles = {"tokens_per_second": "tokens_per_second", "peak_gib": "peak_memory"}
    made: dict[str, float | None] = {}
    for peer in (side for side in found if side != "llmkit"):
        pairs = list(zip(found.get("llmkit", []), found[peer], strict=False))
        for figure, title in titles.items():
            each = [a[figure] / b[figure] for a, b in pairs if figure in a and figure in b]
            name = f"{title}_vs_{peer}"
            made[name] = round(statistics.median(each), 3) if each else None
    return made


def median(turns: list[dict[str, Any]], figure: str) -> float | None:
    """Of a side's turns that have the figure."""
    found = [turn[figure] for turn in turns if figure in turn]
    return statistics.median(found) if found else None


def summary(made: dict[str, Any], found: Turns) -> dict[str, Any]:
    """All figures as the one line that the benchmark ends with."""
    rate = made["flops_a_token"] / made["matmul_tflops"] / 1e12
    speeds = {side: median(turns, "tokens_per_second") for side, turns in found.items()}
    return {
        "figures": {"made": made, "sides": found},
        "peak_gib": median(found.get("llmkit", []), "peak_gib"),
        "peak_reserved_gib": median(found.get("llmkit", []), "peak_reserved_gib"),
        "fraction_of_matmul_rate": {
            side: speed and round(speed * rate, 4) for side, speed in speeds.items()
        },
        "peers": {name: importlib.metadata.version(name) for name in PACKAGES},
        "ratios": ratios(found),
    }


def refuse_what_cannot_run(arguments: argparse.Namespace) -> None:
    """Look for what every side needs before minutes are spent.

    Raises:
        SystemExit: there is no GPU for a model that wants one, or a package is missing.
    """
    import torch

    if arguments.shape != "tiny" and not torch.cuda.is_available():
        raise SystemExit(
            f"no CUDA GPU answers on this machine (torch {torch.__version__}), and the shape "
            f"{arguments.shape} has 7 billion weights. --shape tiny runs anywhere."
        )
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise SystemExit(
            f"not installed: {', '.join(missing)}. Put their wheels into a folder and name it "
            "with --wheels; which ones, and how to collect them: --help."
        )


def asked() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=["mistral-7b", "tiny"], default="mistral-7b")
    parser.add_argument("--sides", nargs="+", choices=TRAINED, default=list(TRAINED))
    parser.add_argument("--wheels", type=lambda p: Path(p).resolve())
    parser.add_argument(
        "--folder",
        type=lambda p: Path(p).resolve(),
        help="keeps the weights for the next run; a temporary folder by default",
    )
    parser.add_argument("--batch", type=int, default=1, help="packs in a forward pass")
    parser.add_argument("--accumulate", type=int, default=1, help="forward passes in a step")
    parser.add_argument("--steps", type=int, default=12, help="the first two are not timed")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw", help="on both sides")
    parser.add_argument("--no-checkpointing", action="store_true", help="on both sides")
    parser.add_argument(
        "--trl-attention",
        default="auto",
        help="auto: flash_attention_2 where flash-attn is installed, else sdpa; or flex_attention",
    )
    parser.add_argument("--card-gib", type=float, help="the memory of a smaller card")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.steps <= WARM_UP:
        parser.error(f"--steps: {WARM_UP} are not timed, so say more")
    return arguments


def main() -> None:
    """Measure, print what happens, and end with one JSON line."""
    arguments = asked()
    if arguments.side:
        from gpu_sides import Job, figures_of

        print(json.dumps(figures_of(arguments.side, Job.read(arguments.job))))
        return
    with tempfile.TemporaryDirectory() as name:
        packages = Path(name) / "packages"
        if arguments.wheels:
            unpack(arguments.wheels, packages)
            sys.path.insert(0, str(packages))
        refuse_what_cannot_run(arguments)
        folder = arguments.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [str(packages), str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        job = {
            "shape": arguments.shape,
            "folder": str(folder),
            "batch": arguments.batch,
            "accumulate": arguments.accumulate,
            "steps": arguments.steps,
            "checkpointing": not arguments.no_checkpointing,
            "optimizer": arguments.optimizer,
            "trl_attention": arguments.trl_attention,
            "limit_gib": arguments.card_gib,
            "seed": arguments.seed,
        }
        made = measured("make", job, environment)
        if "failed" in made:
            raise SystemExit(made["failed"])
        print(f"made: {json.dumps(made)}", flush=True)
        found = in_turns(job, arguments.sides, arguments.repeats, environment)
        figures = summary(made, found)
    wrong = [
        f"{side}: {turn.get('failed', 'trained other tokens')}"
        for side, turns in found.items()
        for turn in turns
        if "failed" in turn or turn.get("tokens", made["tokens"]) != made["tokens"]
    ]
    print(json.dumps(figures))
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
