"""Benchmarks are run by hand and seldom: what they take from the packages must still be there."""

import ast
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "benchmarks").rglob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_what_a_benchmark_imports_from_the_packages_is_there(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        if node.module.split(".")[0] in ("data_prep", "llmkit", "serve"):
            module = importlib.import_module(node.module)
            for name in node.names:
                full = f"{node.module}.{name.name}"
                found = hasattr(module, name.name) or importlib.util.find_spec(full)
                assert found, f"line {node.lineno}: {full}"
