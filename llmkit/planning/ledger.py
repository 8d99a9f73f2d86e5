"""Counts the memory of tensors that come and go while code runs on tensors without memory.

What a process on the CPU holds is more than its live tensors. glibc takes blocks of 32 MiB and more
from the system one by one and gives them back; smaller ones come from a heap that fills with holes
and does not shrink:

    resident = what was there + HOLES x the most that small blocks ever were + large blocks now

A hole that a tensor left between two others does not take another of its size: torch asks for
aligned blocks, for which glibc looks for more room than they need, and the small things that are
allocated in between lie in it.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

LARGE = 32 * 2**20
"""Bytes from which glibc never takes a block from the heap (``DEFAULT_MMAP_THRESHOLD_MAX``)."""
HOLES = 1.2
"""The heap of a training over the most that was live in it: one figure for every recipe, fitted to
the peaks of the 21 that benchmarks/plan.py trains."""


class Ledger(TorchDispatchMode):
    """Adds up the tensors that operations make, until nothing refers to them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seen: set[int] = set()
        self._small = 0
        self._large = 0
        self._most_small = 0
        self.live_peak = 0
        """The most bytes that were live at once since `restart`."""
        self.resident_peak = 0
        """The most bytes that a process on the CPU held for them since `restart`."""

    @property
    def live(self) -> int:
        """Bytes that something refers to now."""
        return self._small + self._large

    @property
    def heap(self) -> int:
        """Bytes that the heap has grown to."""
        return round(HOLES * self._most_small)

    def restart(self) -> None:
        """Forget the peaks, not what the heap has grown to."""
        self.live_peak = self.resident_peak = 0
        self._note()

    def grow_heap(self, size: int) -> None:
        """So many bytes of small blocks come and go."""
        self._most_small = max(self._most_small, round(size / HOLES))

    def disregard(self, tensors: Iterable[torch.Tensor]) -> None:
        """Leave out tensors that were there before, and whatever is a view of them."""
        self._seen |= {each.untyped_storage()._cdata for each in tensors}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation and count what it made."""
        del types
        out = func(*args, **(kwargs or {}))
        for each in tree_iter(out):
            if isinstance(each, torch.Tensor):
                self._see(each)
        inside = INSIDE.get(func.name())
        if inside:
            size = inside(*args)
            self._add(size)
            self._drop(size)
        return out

    def _see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._seen:
            self._seen.add(key)
            size = storage.nbytes()
            self._add(size)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self._drop(size)

    def _add(self, size: int) -> None:
        if size < LARGE:
            self._small += size
        else:
            self._large += size
        self._note()

    def _drop(self, size: int) -> None:
        if size < LARGE:
            self._small -= size
        else:
            self._large -= size

    def _note(self) -> None:
        self._most_small = max(self._most_small, self._small)
        self.live_peak = max(self.live_peak, self.live)
        held = self.heap + self._large
        self.resident_peak = max(self.resident_peak, held)


def _dequantized(inputs: torch.Tensor, packed: torch.Tensor, shape: Any, *_: Any) -> int:
    del packed
    return int(shape[0] * shape[1] * inputs.element_size())


INSIDE: dict[str, Callable[..., int]] = {"bitsandbytes::gemm_4bit": _dequantized}
"""Operations that hold more than what they return: their name -> bytes, from their arguments."""
