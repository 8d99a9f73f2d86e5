"""Plots of what was measured, as PNG files and one HTML page that needs no network."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
    "color:#1c2430;background:#fff}table{border-collapse:collapse;margin:1rem 0}"
    "td,th{padding:.3rem .8rem;border-bottom:1px solid #d8dee6;text-align:right}"
    "td:first-child,th:first-child{text-align:left}img{max-width:100%}"
    "code{background:#eef1f5;padding:.1rem .3rem}"
)


@dataclass(frozen=True)
class Line:
    """One curve."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Plot:
    """One picture."""

    name: str
    """Of its file, without ``.png``."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line] = ()
    bars: Mapping[str, float] | None = None
    """Instead of lines: heights by label."""


def draw(plot: Plot) -> bytes:
    """A plot as the bytes of a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    if plot.bars is not None:
        drawn = axes.bar(list(plot.bars), list(plot.bars.values()), color="#2f6fde", width=0.55)
        axes.bar_label(drawn, fmt="{:.3g}", padding=3)
    for line in plot.lines:
        axes.plot(line.x, line.y, marker="o", label=line.label)
    axes.set(title=plot.title, xlabel=plot.x_label, ylabel=plot.y_label)
    axes.margins(y=0.12)  # before the limit, which ends the scaling: bars' figures need the room
    axes.set_ylim(bottom=0)
    axes.set_axisbelow(True)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if len(plot.lines) > 1:
        axes.legend(frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def write_report(
    folder: Path,
    title: str,
    remarks: Sequence[str],
    table: Sequence[Mapping[str, str]],
    plots: Sequence[Plot],
) -> Path:
    """Write ``NAME.png`` for every plot, and ``index.html`` with all of them.

    Args:
        folder: made if it is not there.
        title: the page's heading.
        remarks: paragraphs below it: what was measured, where, and how to read it.
        table: rows with the same keys, which become the columns.
        plots: what to draw.

    Returns:
        The page's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for plot in plots:
        png = draw(plot)
        (folder / f"{plot.name}.png").write_bytes(png)
        data = base64.b64encode(png).decode()
        pictures.append(f'<img alt="{html.escape(plot.title)}" src="data:image/png;base64,{data}">')
    page = folder / "index.html"
    page.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>{html.escape(title)}</h1>"
        + "".join(f"<p>{html.escape(remark)}</p>" for remark in remarks)
        + _table(table)
        + "".join(pictures)
        + "</html>\n",
        encoding="utf-8",
    )
    return page


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row.values()) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"
