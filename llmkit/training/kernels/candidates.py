"""A faster form of a module's forward pass, which has to show that it is one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Candidate:
    """One module and another way to compute what it does."""

    kind: str
    """``lora``, ``norm`` or ``gate``."""
    module: Any
    shape: tuple[int, ...]
    """What its cost depends on; the first number is the width of its input."""
    forward: Callable[..., Any]
    """Takes what the module's own takes, and gives what that gives."""

    @property
    def key(self) -> tuple[str, str, tuple[int, ...]]:
        """Modules with the same are measured once."""
        base = getattr(self.module, "base_layer", self.module)
        weights = {
            f"{str(p.dtype).removeprefix('torch.')}{' trained' if p.requires_grad else ''}"
            for p in self.module.parameters()
        }
        return self.kind, f"{type(base).__name__} ({', '.join(sorted(weights))})", self.shape

    def use(self) -> None:
        """Compute in this way from now on."""
        self.module.forward = self.forward
