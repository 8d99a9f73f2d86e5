"""Counts the memory of tensors that come and go while code runs on tensors without memory."""

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from llmkit.planning.heap import Heap

RECORD = 512
"""Bytes of what torch notes about a tensor; they lie between the tensors, and split holes."""


class Ledger(TorchDispatchMode):
    """Adds up the tensors that operations make, until nothing refers to them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seen: set[int] = set()
        self._heap = Heap()
        self.live = 0
        """Bytes that something refers to now."""
        self.live_peak = 0
        """The most bytes that were live at once since `restart`."""
        self.resident_peak = 0
        """The most bytes that a process on the CPU held for them since `restart`."""

    def restart(self) -> None:
        """Forget the peaks, not what the heap has grown to."""
        self.live_peak, self.resident_peak = self.live, self._heap.held

    def disregard(self, tensors: Iterable[torch.Tensor]) -> None:
        """Leave out tensors that were there before, and whatever is a view of them."""
        self._seen |= {each.untyped_storage()._cdata for each in tensors}

    def pass_through(self, size: int) -> None:
        """Something of a size comes and goes."""
        self._drop(self._add(size), size)

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
            self.pass_through(inside(*args))
        return out

    def _see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._seen:
            self._seen.add(key)
            size = storage.nbytes()
            weakref.finalize(storage, self._forget, key, self._add(size), size)

    def _forget(self, key: int, place: tuple[int, int], size: int) -> None:
        self._seen.discard(key)
        self._drop(place, size)

    def _add(self, size: int) -> tuple[int, int]:
        place = self._heap.take(size), self._heap.take(RECORD)
        self.live += size
        self.live_peak = max(self.live_peak, self.live)
        self.resident_peak = max(self.resident_peak, self._heap.held)
        return place

    def _drop(self, place: tuple[int, int], size: int) -> None:
        self._heap.free(place[0], size)
        self._heap.free(place[1], RECORD)
        self.live -= size


def _dequantized(inputs: torch.Tensor, packed: torch.Tensor, shape: Any, *_: Any) -> int:
    del packed
    return int(shape[0] * shape[1] * inputs.element_size())


INSIDE: dict[str, Callable[..., int]] = {"bitsandbytes::gemm_4bit": _dequantized}
"""Operations that hold more than what they return: their name -> bytes, from their arguments."""
