"""What the events of a whole training come to: speed, memory, losses, margins."""

from typing import Any

WATCHED = (
    *("margin", "accuracy", "chosen_reward", "rejected_reward", "kl"),
    *("divergence", "cross_entropy"),
)
"""Figures of preferences and of distillation that the manifest keeps."""


def told_by(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures that the events of all steps come to."""
    return {**_speed(events), "watched": _watched(events)}


def _watched(events: list[dict[str, Any]]) -> dict[str, list[float]]:
    """What an objective shows beside its loss: at the start, or first step, and at the end.

    Some figures are not in every event: kto has no margin where all answers have one label.
    """
    measured = [event for event in events if event["event"] == "validation"]
    seen = measured or [event for event in events if event["event"] == "step"]
    found = {name: [event[name] for event in seen if name in event] for name in WATCHED}
    return {name: [values[0], values[-1]] for name, values in found.items() if values}


def _speed(events: list[dict[str, Any]]) -> dict[str, Any]:
    steps = [event for event in events if event["event"] == "step"]
    timed = steps[2:] or steps  # the first steps warm caches up
    return {
        "loss_first": steps[0]["loss"],
        "loss_last": steps[-1]["loss"],
        "tokens": sum(step["tokens"] for step in steps),
        "tokens_per_second": round(
            sum(step["tokens"] for step in timed) / sum(step["seconds"] for step in timed), 1
        ),
        "peak_memory_mib": max(step["memory_mib"] for step in steps),
    }
