"""The run's report: one HTML file, nothing fetched, readable on a phone."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import jinja2

from llmkit.report.charts import loss_curve
from llmkit.run import Run
from llmkit.training.events import read_events

PAGES = Path(__file__).parent
STAGES = ["prep", "train", "merge", "verify", "evaluate"]
OF_REWARD_MODELS = STAGES[:3]
"""A reward model answers nothing that could be verified or asked."""
LOSS_OF = {
    "dpo": "a pair",
    "kto": "a labelled answer",
    "orpo": "cross-entropy a token of the chosen answers, and the odds ratio a pair",
    "reward": "nats a pair",
    "distill": "nats a supervised token, of the divergence from the teacher and the cross-entropy",
}
"""What a method's loss is of; where it is not here, nats a supervised token."""


def render(run: Path) -> str:
    """Render a run directory as HTML.

    Every text of the run (answers, file names, rows) is escaped; a part whose stage was not done
    is left out.

    Args:
        run: a run directory, finished or not.

    Raises:
        UsageError: the manifest is damaged.
    """
    template = load_page("report.html.jinja", {"duration": _duration, "plainly": _plainly})
    stages: dict[str, Any] = Run(run).manifest()["stages"]
    method = _method(stages)
    expected = OF_REWARD_MODELS if method == "reward" else STAGES
    recipe = run / "recipe.yaml"
    return template.render(
        name=run.resolve().name,
        stages=stages,
        all_stages=expected,
        missing=[stage for stage in expected if stage not in stages],
        method=method,
        loss_of=LOSS_OF.get(method, "nats a supervised token"),
        seconds=sum(stage["seconds"] for stage in stages.values()),
        ledger=_figures(stages, "prep"),
        training=_figures(stages, "train"),
        curve=loss_curve(read_events(run / "events.jsonl")),
        merge=_figures(stages, "merge"),
        verification=_figures(stages, "verify"),
        stale=_stale(stages),
        evaluation=_read(run / "evaluation.json") if "evaluate" in stages else None,
        recipe=recipe.read_text(encoding="utf-8") if recipe.is_file() else "",
        packages=next((s["packages"] for s in reversed(list(stages.values()))), {}),
    )


def load_page(name: str, filters: Mapping[str, Callable[..., Any]]) -> jinja2.Template:
    """A page of this folder; whatever it shows is escaped."""
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FileSystemLoader(PAGES),
    )
    environment.filters |= filters
    return environment.get_template(name)


def _figures(stages: Mapping[str, Any], name: str) -> Any:
    return stages.get(name, {}).get("figures")


def _method(stages: Mapping[str, Any]) -> str:
    """How the run trains; it fine-tunes as long as it has not said otherwise."""
    inputs = stages.get("train", {}).get("inputs", {})
    return str(json.loads(inputs.get("training.method", '"sft"')))


def _stale(stages: Mapping[str, Any]) -> str:
    """What was done again since the verdict was made."""
    if not {"train", "merge", "verify"} <= stages.keys():
        return ""
    if stages["merge"]["inputs"].get("adapter") != stages["train"]["outputs"]["adapter"]["sha256"]:
        return "trained again"
    if stages["verify"]["inputs"].get("merged") != stages["merge"]["outputs"]["merged"]["sha256"]:
        return "merged again"
    return ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _plainly(figures: Mapping[str, Any]) -> str:
    """Figures as a line of words; lists of examples are left to the JSON file."""
    parts = []
    for name, value in figures.items():
        words = name.replace("_", " ")
        if isinstance(value, bool | str):
            parts.append(f"{words} {str(value).lower() if isinstance(value, bool) else value}")
        elif isinstance(value, int | float):
            parts.append(f"{words} {value:.4g}")
        elif isinstance(value, dict):
            parts += [f"{words}: {_plainly({str(k): v for k, v in value.items()})}"]
    return "; ".join(parts)


def _read(path: Path) -> Any:
    """A stage's own file; None when it is not there, or something else wrote into it."""
    with suppress(OSError, ValueError):
        return json.loads(path.read_text(encoding="utf-8"))
    return None
