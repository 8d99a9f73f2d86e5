"""Arrows point one way: llmkit -> data_prep, llmkit -> serve."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def modules(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


def imported(path: Path) -> set[str]:
    """Top-level names of everything a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            names.add(str(node.module).split(".")[0])
    return names


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("data_prep", {"llmkit", "serve", "torch", "transformers", "vllm"}),
        ("serve", {"llmkit", "data_prep"}),
    ],
)
def test_a_package_imports_nothing_that_it_must_not_know(package: str, forbidden: set[str]):
    offenders = {dotted(path): imported(path) & forbidden for path in modules(package)}
    assert {name: found for name, found in offenders.items() if found} == {}


def test_one_module_of_the_server_and_one_of_the_engine_import_vllm():
    importers = [
        dotted(path)
        for package in ("data_prep", "serve", "llmkit")
        for path in modules(package)
        if "vllm" in imported(path)
    ]
    assert importers == ["serve.vllm_app", "serve.vllm_lora", "serve.vllm_seeds"]


def test_preparing_data_imports_no_torch():
    names = [dotted(path) for path in modules("data_prep")]
    code = (
        f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\n"
        "heavy = {'torch', 'transformers', 'vllm', 'llmkit', 'serve'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
