"""The run's report: one HTML file, nothing fetched, readable on a phone."""

import json
from pathlib import Path
from typing import Any

import jinja2

from llmkit.report.charts import loss_curve
from llmkit.training.progress import read_events

TEMPLATE = Path(__file__).parent / "report.html.jinja"


def render(run: Path) -> str:
    """Render a run directory as HTML.

    Every text of the run (answers, file names, rows) is escaped; a part whose stage was not done
    is left out.

    Args:
        run: a run directory, finished or not.
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    manifest = _read(run / "manifest.json") or {"stages": {}}
    stages: dict[str, Any] = manifest["stages"]
    events = read_events(run / "events.jsonl")
    return template.render(
        name=run.resolve().name,
        stages=stages,
        seconds=sum(stage["seconds"] for stage in stages.values()),
        ledger=stages.get("prep", {}).get("figures"),
        training=stages.get("train", {}).get("figures"),
        curve=loss_curve(events),
        merge=stages.get("merge", {}).get("figures"),
        verification=_read(run / "verification.json")
        if "verify" in stages or _failed(run)
        else None,
        evaluation=_read(run / "evaluation.json") if "evaluate" in stages else None,
        recipe=(run / "recipe.yaml").read_text(encoding="utf-8"),
        packages=next((s["packages"] for s in reversed(list(stages.values()))), {}),
    )


def _failed(run: Path) -> bool:
    verdict = _read(run / "verification.json")
    return verdict is not None and not verdict["passed"]


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
