"""A limit on the memory that models take together: what was least lately used makes room for what is needed."""

from __future__ import annotations

import ctypes
import gc
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.metrics import resident_bytes

if TYPE_CHECKING:
    from edge_runtime.model import Model

__all__ = ["MemoryBudget"]

_Loaded = TypeVar("_Loaded")


class MemoryBudget:
    """Keeps the models that share it within a limit.

    A model is loaded when it is called; while the others leave too little room, the one that was called longest ago and
    is idle is unloaded first. What a model takes is measured as it is loaded and run first: what the C library's
    allocator handed out meanwhile (`mallinfo2`), or where there is none how far resident memory grew. It is an
    estimate: other threads allocate too.

    Args:
        limit_bytes: What models may take together.

    Example:
        >>> budget = MemoryBudget(64_000_000)
        >>> models = [Model(path, budget=budget) for path in paths]
    """

    def __init__(self, limit_bytes: int):
        if limit_bytes <= 0:
            raise HybridgeError(
                ErrorCode.USAGE, "memory budget", received=f"{limit_bytes} bytes", expected="more than none"
            )
        self.limit_bytes = limit_bytes
        self._lock = threading.RLock()
        self._models: weakref.WeakSet[Model] = weakref.WeakSet()

    @property
    def used_bytes(self) -> int:
        """What the loaded models take now."""
        return sum(model.memory_bytes for model in self._models)

    def join(self, model: Model) -> None:
        """Makes a model one of those that share the budget."""
        self._models.add(model)

    def load(self, model: Model, make: Callable[[], _Loaded], *, expected_bytes: int) -> tuple[_Loaded, int]:
        """Loads something for a model once there is room for it; returns it and what it took.

        Args:
            model: Whose it is.
            make: Loads it.
            expected_bytes: What it took when it was last loaded, or an estimate.

        Raises:
            HybridgeError: `memory-budget` when it does not fit, however many others are unloaded.
        """
        with self._lock:
            self._make_room(model, expected_bytes)
            before = _allocated_bytes()
            loaded = make()
            taken = max(_allocated_bytes() - before, 0)
            if self.used_bytes + taken > self.limit_bytes:
                try:
                    self._make_room(model, taken)
                except HybridgeError:
                    del loaded
                    gc.collect()
                    raise
            return loaded, taken

    def _make_room(self, model: Model, wanted: int) -> None:
        others = sorted(
            (other for other in self._models if other is not model and other.memory_bytes),
            key=lambda other: other.last_used,
        )
        while self.used_bytes + wanted > self.limit_bytes:
            while others and not others[0].unload():
                # It is running; the next one, then.
                others.pop(0)
            if not others:
                raise HybridgeError(
                    ErrorCode.MEMORY_BUDGET,
                    f"model '{model.name}'",
                    received=f"a need of {wanted / 1e6:.1f} MB, with {self.used_bytes / 1e6:.1f} MB in use",
                    expected=f"at most {self.limit_bytes / 1e6:.1f} MB together",
                    fix="raise the budget, or use a smaller model or fewer at once",
                )
            others.pop(0)


class _Mallinfo2(ctypes.Structure):
    # In the order of malloc.h.
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def _allocated_bytes() -> int:
    """Bytes that the allocator has handed out: in its arenas, and mapped one by one."""
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return resident_bytes()
    mallinfo2.restype = _Mallinfo2
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)
