"""``events.jsonl``: what a training says of every step, written and read back.

Apart from what trains, so that a report is written without importing torch.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from llmkit.files import write_text


class Events:
    """The file being written: a line a step, flushed, so a killed run tells how far it came."""

    def __init__(self, path: Path, resume_after: int) -> None:
        """Open the file; lines after step ``resume_after`` are forgotten, they will come again."""
        kept = until(read_events(path), resume_after) if resume_after else []
        write_text(path, "".join(json.dumps(event) + "\n" for event in kept))
        self._file: TextIO = path.open("a", encoding="utf-8")

    def write(self, event: Mapping[str, Any]) -> None:
        """Append one event."""
        self._file.write(json.dumps(event) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class NoEvents:
    """What every process but the first writes."""

    def write(self, event: Mapping[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing is open."""


def until(events: Iterable[dict[str, Any]], step: int) -> list[dict[str, Any]]:
    """The events of steps up to this one."""
    return [event for event in events if event["step"] <= step]


def read_events(path: Path) -> list[dict[str, Any]]:
    """Every whole event of a file; the last line of a killed run may be cut short."""
    if not path.is_file():
        return []
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.keys() >= {"event", "step"}:
            events.append(event)
    return events
