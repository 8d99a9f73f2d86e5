"""What each training method learns from, as data_prep makes it."""

from typing import Any

from data_prep.units import Units
from llmkit.training.settings import Method, PreferenceConfig

UNITS_OF: dict[Method, Units] = {
    "sft": "rows",
    "pretrain": "rows",
    "distill": "rows",
    "dpo": "pairs",
    "orpo": "pairs",
    "reward": "pairs",
    "kto": "labelled",
}
BALANCED = (1.0, 4 / 3)
"""Between these KTO's authors keep the weight of all good answers over that of all bad ones
(arXiv 2402.01306, equation 8)."""


def unbalanced_labels(figures: dict[str, Any], config: PreferenceConfig) -> str:
    """What a person should know of the good and bad answers that kto learns from; else nothing.

    Args:
        figures: of the prepared data.
        config: the weights that its losses have.
    """
    if figures.get("units") != "labelled":
        return ""
    good, bad = figures["good_rows"], figures["bad_rows"]
    low, high = BALANCED
    weighed = good * config.desirable_weight
    other = bad * config.undesirable_weight
    if low * other <= weighed <= high * other:
        return ""
    said = (
        f"warning: {good} good and {bad} bad answers to train on, and kto's authors keep the "
        "weight of all good ones at 1 to 4/3 of that of all bad ones. "
    )
    if not (weighed and other):
        return f"{said}A weight of 0 leaves one kind out: give both one above 0."
    between = f"between {low * other / good:.3g} and {high * other / good:.3g}"
    return f"{said}Set training.preference.desirable_weight {between}, or undesirable_weight."
