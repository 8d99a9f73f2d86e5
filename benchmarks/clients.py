"""The clients people use, against our server: openai (Python and Node), langchain-openai, litellm.

    python benchmarks/clients.py [--url http://127.0.0.1:8000/v1 --served NAME]

Chat, streaming, tools, structured output, logprobs, errors (embeddings among them), batches: each
is asked as the documentation says, and the answer looked at. Without `--url` a server on
SmolLM2-135M is started. The Python clients live in the benchmarks' environment (`bench-peers`);
the Node client is installed from npm into a temporary folder, and left out where there is no node.
The last line printed is one JSON object; `ratios` are checks passed over checks made.
"""

import argparse
import contextlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# This folder holds a file of that package's name.
sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).parent]

from llmkit.models.catalog import resolve
from serve.model import open_model
from serve.process import ServerProcess
from serve.settings import ServeSettings

PEERS = Path(__file__).parent / "peers"
PYTHON = PEERS.parents[1] / ".bench-venv" / "bin" / "python"
NODE_CLIENT = "openai@7.59.0"


def python_clients(url: str, model: str) -> dict[str, dict[str, str]]:
    """Checks by client, from the benchmarks' environment."""
    if not PYTHON.exists():
        raise SystemExit("there is no .bench-venv. Run: make bench-peers")
    return _printed([str(PYTHON), str(PEERS / "clients.py"), url, model])


def node_client(url: str, model: str) -> dict[str, dict[str, str]]:
    """Checks of the Node client; none where node is not installed."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if not npm or not node:
        print("node is not installed: its client is left out.", file=sys.stderr)
        return {}
    with tempfile.TemporaryDirectory() as folder:
        script = shutil.copy(PEERS / "clients.mjs", folder)
        install = [npm, "install", "--silent", "--no-audit", "--no-fund", NODE_CLIENT]
        subprocess.run(install, cwd=folder, check=True, stdout=sys.stderr)
        return _printed([node, script, url, model])


def _printed(command: list[str]) -> dict[str, dict[str, str]]:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[1]} failed:\n{done.stderr[-3000:]}")
    found: dict[str, dict[str, str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Every client, every check."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", help="a server that runs, instead of one that is started")
    parser.add_argument("--served", default="smollm2", help="the model's name there")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url = args.url
        if url is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            model = open_model(resolve("smollm2-135m-instruct").folder, name=args.served)
            settings: dict[str, Any] = {"max_model_len": 2048, "database": "none"}
            settings |= {"batches_folder": folder / "batches", "tool_parser": "hermes"}
            server = ServerProcess(model, folder / "log", ServeSettings(**settings))
            url = stack.enter_context(server).url
        found = python_clients(url, args.served) | node_client(url, args.served)
    for client, checks in found.items():
        for check, result in checks.items():
            print(f"{client}: {check}: {result}", file=sys.stderr)
    results = {name: list(checks.values()) for name, checks in found.items()}
    ratios = {
        f"checks_passed_{name}": each.count("ok") / len(each) for name, each in results.items()
    }
    versions = {
        dist.metadata["Name"]: dist.version
        for dist in importlib.metadata.distributions(
            path=[str(path) for path in PYTHON.parents[1].glob("lib/python*/site-packages")]
        )
        if dist.metadata["Name"] in ("openai", "langchain-openai", "litellm")
    }
    peers = versions | {"openai (node)": NODE_CLIENT.partition("@")[2]}
    print(json.dumps({"figures": found, "peers": peers, "ratios": ratios}))


if __name__ == "__main__":
    main()
