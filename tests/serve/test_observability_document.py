"""The document on observability names what there is, all of it and nothing else."""

import re
from pathlib import Path

from serve.gateway.exchange import Exchange
from serve.gateway.observe import log_fields
from serve.metrics.figures import Figures

TEXT = (Path(__file__).parents[2] / "docs/serving/observability.md").read_text(encoding="utf-8")


def first_column(section: str) -> set[str]:
    part = TEXT.split(f"\n## {section}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", part, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_every_family_of_metrics_is_described() -> None:
    families = Figures(keys=1, models=1).registry.collect()
    counters = {f"{f.name}_total" if f.type == "counter" else f.name for f in families}
    assert first_column("Metrics") == counters


def test_every_field_of_the_access_log_is_described() -> None:
    fields = log_fields(
        Exchange(), client=None, method="GET", status=200, complete=True, ended=0.0, trace_id=None
    )
    assert first_column("Access log") == {*fields, "time", "dropped_before"}
