"""Charts as inline SVG, so that a report needs no script and no network."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 20, 14, 32
BARS_WIDTH, BARS_HEIGHT, BARS_LEFT = 340, 190, 44
"""Of a histogram: several stand side by side."""
EDGE_WIDTH = 30
"""What the number of an edge takes, with some space beside it."""


def loss_curve(events: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Training loss by step as a line, validation loss as dots; None without two steps."""
    training = _points(events, "step")
    validation = _points(events, "validation")
    if len(training) < 2:
        return None
    steps = [step for step, _ in training + validation]
    losses = [loss for _, loss in training + validation]
    first, last = min(steps), max(steps)
    ticks = round_ticks(min(losses), max(losses))
    low, high = ticks[0], ticks[-1]

    def x(step: float) -> float:
        return float(LEFT + (WIDTH - LEFT - RIGHT) * (step - first) / max(1, last - first))

    def y(loss: float) -> float:
        return float(TOP + (HEIGHT - TOP - BOTTOM) * (high - loss) / (high - low))

    line = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in training)
    dots = "".join(
        f'<circle cx="{x(step):.1f}" cy="{y(loss):.1f}" r="4" class="validation">'
        f"<title>step {step}: validation loss {loss:.4f}</title></circle>"
        for step, loss in validation
    )
    grid = "".join(
        f'<path d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}" class="grid"/>'
        f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
        for value in ticks
    )
    marks = "".join(
        f'<text x="{x(step):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{step:g}</text>'
        for step in sorted({first, (first + last) // 2, last})
    )
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="loss by step">{grid}{marks}'
        f'<polyline points="{line}" class="training"/>{dots}</svg>'
    )


def round_ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers around a range; from zero where the range comes near it."""
    if low > 0 and low < high / 2:
        low = 0.0
    spread = (high - low) or abs(high) or 1.0
    magnitude = 10.0 ** math.floor(math.log10(spread / 4))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude * 5 >= spread)
    bottom, top = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return [float(f"{part * step:.6g}") for part in range(bottom, top + 1)]


def _points(events: Sequence[Mapping[str, Any]], kind: str) -> list[tuple[int, float]]:
    found = [(e.get("step"), e.get("loss")) for e in events if e.get("event") == kind]
    return [
        (step, float(loss))
        for step, loss in found
        if isinstance(step, int) and isinstance(loss, int | float) and math.isfinite(loss)
    ]


def histogram(counts: Sequence[int], label: str) -> Markup | None:
    """Bars of how many values lie in ``[1, 2)``, ``[2, 4)``, ``[4, 8)``, ...; None without any.

    Every edge that there is room for has its number, the last one always.
    """
    if not any(counts):
        return None
    first = next(i for i, count in enumerate(counts) if count)
    shown = list(counts[first:])
    edges = [2 ** (first + place) for place in range(len(shown) + 1)]
    apart = math.ceil(EDGE_WIDTH / _bar_width(len(shown)))
    marks = [
        (place, _short(edges[place])) for place in range(len(shown) % apart, len(edges), apart)
    ]
    names = [f"{low:,} to {2 * low - 1:,}" for low in edges]
    return _bars(shown, names, marks, label)


def score_bars(counts: Sequence[int], label: str) -> Markup | None:
    """Bars of how many got the score 1, 2, 3, ...; None without any."""
    if not any(counts):
        return None
    names = [str(score) for score in range(1, len(counts) + 1)]
    return _bars(counts, names, [(place + 0.5, name) for place, name in enumerate(names)], label)


def _bar_width(count: int) -> float:
    return (BARS_WIDTH - BARS_LEFT - RIGHT) / count


def _bars(
    counts: Sequence[int], names: Sequence[str], marks: Sequence[tuple[float, str]], label: str
) -> Markup:
    """Bars with names to hover over; marks stand below, at a place counted in bars."""
    width = _bar_width(len(counts))
    floor = BARS_HEIGHT - BOTTOM
    bars = ""
    for place, (count, name) in enumerate(zip(counts, names, strict=False)):
        height = (floor - TOP) * count / max(counts)
        bars += (
            f'<rect x="{BARS_LEFT + place * width + 1:.1f}" y="{floor - height:.1f}" '
            f'width="{width - 2:.1f}" height="{height:.1f}" class="bar">'
            f"<title>{name}: {count:,}</title></rect>"
        )
    below = "".join(
        f'<text x="{BARS_LEFT + place * width:.1f}" y="{BARS_HEIGHT - 8}" text-anchor="middle">'
        f"{text}</text>"
        for place, text in marks
    )
    top = f'<text x="{BARS_LEFT - 8}" y="{TOP + 6}" text-anchor="end">{_short(max(counts))}</text>'
    return Markup(
        f'<svg viewBox="0 0 {BARS_WIDTH} {BARS_HEIGHT}" role="img" aria-label="{label}">'
        f'<path d="M{BARS_LEFT} {floor}H{BARS_WIDTH - RIGHT}" class="grid"/>'
        f"{top}{bars}{below}</svg>"
    )


def _short(number: int) -> str:
    """``512``, ``16k``, ``2M``: powers of two in the units of 1024 that token counts come in."""
    for unit, size in (("M", 2**20), ("k", 2**10)):
        if number >= size and number % size == 0:
            return f"{number // size}{unit}"
    return f"{number:,}"
