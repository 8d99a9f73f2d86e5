"""Our server against its own OpenAPI document: thousands of requests made up by schemathesis.

    python benchmarks/conformance.py [--examples 250] [--context 40] [--also URL] [--seed 1]

Schemathesis (from `.bench-venv`) makes requests that fit the document and requests that break it in
one place, sends them to the server on the real engine, and judges every answer: no 5xx, only
statuses, content types and bodies that the document has, and a 4xx for what breaks it. Its coverage
phase goes through every field; its fuzzing phase makes `--examples` more for each route. The
model's context is cut to some tokens, so that the time goes into requests and not into answers. One
process a route: on Python 3.11, hypothesis fails now and then with several threads.

`--also` sends the same to another server of the same model name, such as a bare vLLM; its figures
are beside ours. The last line printed is one JSON object.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

# This file's own folder would hide the package of the name of one of its scripts.
sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).parent]

import httpx
import psutil

from llmkit.models.catalog import resolve
from serve.model import open_model
from serve.process import ServerProcess
from serve.settings import ServeSettings

ROOT = Path(__file__).resolve().parent.parent
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
)
CONFIGURATION = """
[checks.negative_data_rejection]
# Their default has no 413, which is what a list of more than 4 MiB gets.
expected-statuses = ["400", "401", "403", "404", "405", "413", "415", "422", "429"]
"""


class Run:
    """One schemathesis process on some routes."""

    def __init__(
        self, args: argparse.Namespace, document: Path, url: str, folder: Path, only: list[str]
    ) -> None:
        folder.mkdir()
        (folder / "schemathesis.toml").write_text(CONFIGURATION)
        self._folder = folder
        words = [args.schemathesis, "run", str(document), "--url", url, "--seed", str(args.seed)]
        words += ["--phases", "coverage,fuzzing", "--max-examples", str(args.examples)]
        words += ["--checks", ",".join(CHECKS), "--continue-on-failure", "--no-shrink"]
        words += [
            "--output-sanitize",
            "false",
            "--request-timeout",
            "120",
            "--suppress-health-check",
            "all",
        ]
        words += ["--report", "json", "--report-json-path", "report.json", *only]
        with (folder / "output").open("wb") as output:
            self._process = subprocess.Popen(words, cwd=folder, stdout=output, stderr=output)

    def report(self) -> dict[str, Any]:
        """What it found, once it has ended."""
        self._process.wait()
        report = self._folder / "report.json"
        if not report.is_file():
            raise SystemExit(f"no report:\n{(self._folder / 'output').read_text()[-3000:]}")
        done: dict[str, Any] = json.loads(report.read_text())
        return done


def measure(args: argparse.Namespace, document: dict[str, Any], url: str) -> dict[str, Any]:
    """Send it all to one server; cases and failures."""
    bodies = [
        route
        for route, methods in document["paths"].items()
        if any("requestBody" in operation for operation in methods.values())
    ]
    if args.routes:
        bodies = [route for route in bodies if route in args.routes]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        file = Path(made) / "openapi.json"
        file.write_text(json.dumps(document))
        groups = [["--include-path", route] for route in bodies]
        if not args.routes:
            groups.append([word for route in bodies for word in ("--exclude-path", route)])
        runs = [
            Run(args, file, url, Path(made) / str(place), only) for place, only in enumerate(groups)
        ]
        reports = [run.report() for run in runs]
        for run, report in zip(runs, reports, strict=True):
            if report["failures"] or report["errors"]:
                output = (run._folder / "output").read_text()
                print("\n".join(line[:4000] for line in output.splitlines()[:150]))
    failures: Counter[str] = Counter()
    for report in reports:
        failures.update({one["title"]: one["count"] for one in report["failures"]})
    rates = [
        phase for r in reports for route in r["valid_rates"].values() for phase in route.values()
    ]
    return {
        "cases": sum(report["test_cases"]["generated"] for report in reports),
        "fitting_cases_answered": sum(rate["accepted"] for rate in rates),
        "server_errors": failures.get("Server error", 0),
        "failures": dict(failures),
        "errors_of_schemathesis": sum(len(report["errors"]) for report in reports),
        "seconds": round(time.monotonic() - began, 1),
        "schemathesis": reports[0]["schemathesis_version"],
    }


def resident(server: ServerProcess) -> int:
    """Bytes of the server and its engine."""
    first = psutil.Process(server.pid)
    return sum(one.memory_info().rss for one in [first, *first.children(recursive=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=250, help="fuzzing cases a route")
    parser.add_argument("--context", type=int, default=40, help="the model's, in tokens")
    parser.add_argument("--routes", nargs="*", help="these alone (default: all)")
    parser.add_argument("--also", metavar="URL", help="root of another server of the same name")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--schemathesis", default=str(ROOT / ".bench-venv" / "bin" / "st"))
    args = parser.parse_args()
    model = open_model(resolve("smollm2-135m-instruct").folder, name="smollm2")
    with tempfile.TemporaryDirectory() as made:
        log = Path(made) / "server.log"
        adapters = Path(made) / "adapters"
        adapters.mkdir()
        settings = ServeSettings(
            max_model_len=args.context,
            max_choices=2,
            database="none",
            adapters_folder=adapters,
            max_adapters=1,
            batches_folder=Path(made) / "batches",
        )
        with ServerProcess(model, log, settings) as server:
            document = httpx.get(f"{server.root_url}/openapi.json", timeout=60).json()
            before = resident(server)
            figures = {"llmkit": measure(args, document, server.root_url)}
            alive = server.ready()
            figures["llmkit"]["ready_after"] = alive
            if alive:
                figures["llmkit"]["resident_ratio_after"] = round(resident(server) / before, 3)
        if figures["llmkit"]["server_errors"] or not alive:
            print("the server's log ends with:", log.read_text()[-6000:], sep="\n")
    if args.also:
        figures["also"] = measure(args, document, args.also)
    print(json.dumps({**figures, "ratios": {}}))


if __name__ == "__main__":
    main()
