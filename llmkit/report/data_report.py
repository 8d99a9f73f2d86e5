"""The data report: one HTML file of what came in, what stayed, what went and why."""

import json
from pathlib import Path
from typing import Any

from llmkit.report.charts import histogram
from llmkit.report.html import load_page


def render_data_report(name: str, data: Path) -> str:
    """Render what `prepare` left as HTML; every text of the data is escaped.

    Args:
        name: the run's name.
        data: the folder of the prepared data set.
    """
    ledger: dict[str, Any] = json.loads((data / "ledger.json").read_text(encoding="utf-8"))
    overview: dict[str, Any] = json.loads((data / "overview.json").read_text(encoding="utf-8"))
    charts = {
        what: histogram(lengths["counts"], f"tokens of rows {what}")
        for what, lengths in overview["lengths"].items()
    }
    page = load_page("data-report.html.jinja", {"share": _share, "number": "{:,}".format})
    return page.render(name=name, ledger=ledger, overview=overview, charts=charts)


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"
