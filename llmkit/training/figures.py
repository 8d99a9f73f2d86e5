"""What the events of a whole training come to: speed, memory, losses, margins."""

from typing import Any

WATCHED = ("margin", "accuracy", "chosen_reward", "rejected_reward", "kl")
"""Figures of preferences that the manifest keeps."""


def told_by(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures that the events of all steps come to."""
    return {**_speed(events), "watched": _watched(events)}


def _watched(events: list[dict[str, Any]]) -> dict[str, list[float]]:
    """What an objective shows beside its loss: at the start, or first step, and at the end."""
    measured = [event for event in events if event["event"] == "validation"]
    seen = measured or [event for event in events if event["event"] == "step"]
    return {
        name: [seen[0][name], seen[-1][name]]
        for name in WATCHED
        if name in seen[0] and name in seen[-1]
    }


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
