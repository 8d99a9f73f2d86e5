"""`llmkit quickstart`: the whole way, once, on a small model and the data set that ships."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from llmkit.console import TerminalView, View
from llmkit.errors import UsageError
from llmkit.pipeline import run_recipe
from llmkit.project import Project
from llmkit.recipe import load_recipe
from llmkit.run import Run

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "quickstart.yaml"


def run_quickstart(overrides: Sequence[str], runs: Path, view: View) -> None:
    """Do everything and say what to type next.

    Args:
        overrides: ``key=value`` words for the recipe.
        runs: where run directories are.
        view: where a person watches.

    Raises:
        UsageError: llmkit was installed without its recipes.
    """
    if not RECIPE.is_file():
        raise UsageError(f"{RECIPE}: not there. quickstart runs from a clone of the repository.")
    recipe = load_recipe(RECIPE, overrides)
    project = Project(recipe, Run(runs / recipe.name), view)
    report = run_recipe(project)
    if isinstance(view, TerminalView):
        show_answers(project.folder, view.console)
        _say_next(project.folder, report, view.console)


def show_answers(run: Path, console: Console) -> None:
    """Print both models' answers side by side."""
    result = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    table = Table(title="the same questions, before and after", show_lines=True)
    table.add_column("question", ratio=2)
    table.add_column("base model", ratio=4)
    table.add_column("tuned model", ratio=4)
    for row in result["answers"]:
        mark = (
            ""
            if row["tuned_right"] is None
            else ("[green]✓[/] ", "[red]✗[/] ")[not row["tuned_right"]]
        )
        base, tuned = (escape(_short(row[side])) for side in ("base", "tuned"))
        table.add_row(escape(row["question"]), base, mark + tuned)
    console.print(table)
    if result.get("judged"):
        console.print(
            f"answered the way the data teaches: base {result['base_right']} of "
            f"{result['judged']}, tuned [bold]{result['tuned_right']} of {result['judged']}[/]"
        )


def _short(text: str, most: int = 180) -> str:
    from rich.markup import escape

    text = " ".join(text.split())
    return escape(text if len(text) <= most else text[: most - 1] + "…")


def _say_next(run: Path, report: Path, console: Console) -> None:
    recipe = Path(os.path.relpath(RECIPE))
    console.print(
        f"\nreport     {report}\n"
        f"evidence   {run / 'manifest.json'}, {run / 'verification.json'}\n\n"
        "What to type next:\n"
        f"  llmkit serve {run}                       talk to it at http://127.0.0.1:8000/v1\n"
        f"  llmkit preview {recipe}          see what the model was trained on\n"
        f"  llmkit run {recipe.parent / 'smollm2-alpaca-cpu.yaml'} data.sources.0.path=YOUR.json\n"
        "  llmkit quickstart model.quantization=nf4        the same as QLoRA\n",
        soft_wrap=True,
    )
    if not _on_path():
        console.print("(first: source .venv/bin/activate)")


def _on_path() -> bool:
    import shutil

    return shutil.which("llmkit") is not None
