"""The report of a generation: one HTML file of what was made, left out, and at what cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.generate.elimination import REASONS
from data_prep.generate.instruction_filters import INSTRUCTION_FAULTS
from data_prep.generate.results import Generated, Record
from llmkit.report.charts import score_bars
from llmkit.report.html import load_page

EXAMPLES = 2
"""Rows that are shown of each operation, and of each reason."""
SHOWN = 1500
"""Characters of a text that are shown."""


def render_generation_report(
    name: str, figures: Mapping[str, Any], seeds: Mapping[str, str], generated: Generated
) -> str:
    """Render a generation as HTML; every text of the data is escaped.

    Args:
        name: the recipe's name.
        figures: as in ``figures.json``.
        seeds: the instructions that it began with, by id.
        generated: the rows and what was left out, of which some are shown.
    """
    verdicts = list(dict.fromkeys(key for line in figures["yield"] for key in line["verdicts"]))
    verdicts.sort(key=lambda verdict: verdict != "accepted")
    page = load_page("generation-report.html.jinja", {"number": "{:,}".format, "short": _short})
    return page.render(
        name=name,
        figures=figures,
        verdicts=verdicts,
        words={**REASONS, **INSTRUCTION_FAULTS, "accepted": "a row"},
        totals=[sum(line["verdicts"].get(key, 0) for line in figures["yield"]) for key in verdicts],
        charts=[
            (stage["stage"], score_bars(stage["difficulty"], f"difficulty, {stage['stage']}"))
            for stage in figures.get("scores", [])
        ],
        examples=_examples(seeds, generated),
        left_out=_first_of_each(generated.left_out, "verdict"),
    )


def _examples(
    seeds: Mapping[str, str], generated: Generated
) -> dict[str, list[tuple[str, Record]]]:
    """Rows of each operation, each with the instruction that it came from; else the first rows."""
    texts = {**seeds, **{row["lineage"]["id"]: row["instruction"] for row in generated.rows}}
    evolved = [row for row in generated.rows if "operation" in row["lineage"]]
    if not evolved:
        return {"rows": [("", row) for row in generated.rows[: 3 * EXAMPLES]]}
    found = _first_of_each(evolved, "operation")
    return {
        operation: [(texts[row["lineage"]["parent"]], row) for row in rows]
        for operation, rows in found.items()
    }


def _first_of_each(records: Sequence[Record], field: str) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in records:
        some = found.setdefault(record["lineage"][field], [])
        if len(some) < EXAMPLES:
            some.append(record)
    return dict(sorted(found.items()))


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} … ({len(text):,} characters)"
