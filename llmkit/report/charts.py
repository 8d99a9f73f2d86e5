"""Charts as inline SVG, so that a report needs no script and no network."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 28


def loss_curve(events: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Training loss by step as a line, validation loss as dots; None without two steps."""
    training = [(e["step"], e["loss"]) for e in events if e.get("event") == "step"]
    validation = [(e["step"], e["loss"]) for e in events if e.get("event") == "validation"]
    if len(training) < 2:
        return None
    steps = [step for step, _ in training + validation]
    losses = [loss for _, loss in training + validation]
    low, high = min(losses), max(losses)
    spread = (high - low) or 1.0
    low, high = low - 0.05 * spread, high + 0.05 * spread

    def x(step: float) -> float:
        done = (step - min(steps)) / max(1, max(steps) - min(steps))
        return float(LEFT + (WIDTH - LEFT - RIGHT) * done)

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
        f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.2f}</text>'
        for value in (low + (high - low) * part / 4 for part in range(5))
    )
    marks = "".join(
        f'<text x="{x(step):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{step}</text>'
        for step in sorted({min(steps), (min(steps) + max(steps)) // 2, max(steps)})
    )
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="loss by step">{grid}{marks}'
        f'<polyline points="{line}" class="training"/>{dots}</svg>'
    )
