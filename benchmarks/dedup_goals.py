"""What near-duplicate removal is to reach, and whether it did."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Goal:
    """A figure and its bound."""

    what: str
    value: float
    bound: float
    at_least: bool = False
    """Else at most."""

    @property
    def met(self) -> bool:
        """Whether the figure keeps to the bound."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        bound = f"{'at least' if self.at_least else 'at most'} {self.bound:g}"
        missed = f"missed by {abs(self.value - self.bound):.4g}"
        return f"{self.what}: {self.value:.4f}, {bound}: {'met' if self.met else missed}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"what": self.what, "value": self.value, "bound": self.bound, "met": self.met}


def goals(figures: dict[str, dict[str, dict[str, Any]]]) -> list[Goal]:
    """The goals that these figures say something about.

    Args:
        figures: by number of rows, by tool.
    """
    found = []
    for count, tools in figures.items():
        if not count.isdigit():
            continue
        ours, rensa = tools["llmkit"], tools.get("rensa")
        found += [
            Goal(f"{count}: F1", ours["f1"], 0.997, at_least=True),
            Goal(f"{count}: clusters wiped", ours["clusters_wiped"], 0),
            Goal(f"{count}: share of twins lost", ours["lost"].get("twin", 0.0), 0.05),
            Goal(
                f"{count}: certificates that do not hold", ours["certificates_that_do_not_hold"], 0
            ),
        ]
        if rensa:
            seconds = ours["cpu_seconds"] / rensa["cpu_seconds"]
            memory = ours["memory_mib"] / rensa["memory_mib"]
            found.append(Goal(f"{count}: CPU seconds beside rensa's", seconds, 0.67))
            found.append(Goal(f"{count}: peak memory beside rensa's", memory, 1.0))
    counts = sorted(int(count) for count in figures if count.isdigit())
    if len(counts) > 1:
        few, many = (
            figures[str(count)]["llmkit"]["cpu_seconds"] for count in (counts[0], counts[-1])
        )
        growth = (many / few) / (counts[-1] / counts[0])
        found.append(Goal(f"CPU seconds a row, {counts[-1]} beside {counts[0]} rows", growth, 1.2))
    return found
