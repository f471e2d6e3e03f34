"""A limit on the memory that models take together: what was least lately used makes room for what is needed."""

from __future__ import annotations

import ctypes
import gc
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.metrics import resident_bytes

if TYPE_CHECKING:
    from edge_runtime.model import Model

__all__ = ["MemoryBudget"]

_Loaded = TypeVar("_Loaded")
# How long a model waits for others that are running: one that is borrowed by whoever waits never ends.
_PATIENCE_S = 10.0


class MemoryBudget:
    """Keeps the models that share it within a limit.

    A model is loaded when it is called; while the others leave too little room, the one that was called longest ago and
    is idle is unloaded first, and while all of them run, it waits for one that ends. What a model takes is measured as
    it is loaded and run first: what the C library's allocator handed out meanwhile (`mallinfo2`), or where there is
    none how far resident memory grew. It is an estimate: other threads allocate too.

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
        # One model is loaded at a time, those that wait in their order; the other lock is held for moments only.
        self._loading = threading.Lock()
        self._idle = threading.Condition(threading.Lock())
        self._models: weakref.WeakSet[Model] = weakref.WeakSet()

    @property
    def used_bytes(self) -> int:
        """What the loaded models take now."""
        return sum(model.memory_bytes for model in self._members())

    def join(self, model: Model) -> None:
        """Makes a model one of those that share the budget."""
        with self._idle:
            self._models.add(model)

    def notify_idle(self) -> None:
        """Says that a call of one of the models has ended, so that it may be unloaded."""
        with self._idle:
            self._idle.notify_all()

    def load(self, model: Model, make: Callable[[], _Loaded], *, expected_bytes: int) -> tuple[_Loaded, int]:
        """Loads something for a model once there is room for it; returns it and what it took, which is counted.

        Args:
            model: Whose it is.
            make: Loads it.
            expected_bytes: What it took when it was last loaded, or an estimate.

        Raises:
            HybridgeError: `memory-budget` when it does not fit, however many others are unloaded.
        """
        with self._loading:
            self._make_room(model, expected_bytes)
            before = _allocated_bytes()
            loaded = make()
            # What others free meanwhile hides what is taken: far below what was expected is not believed.
            taken = max(_allocated_bytes() - before, expected_bytes // 2, 1)
            if self.used_bytes + taken > self.limit_bytes:
                try:
                    self._make_room(model, taken)
                except HybridgeError:
                    del loaded
                    gc.collect()
                    raise
            model.memory_bytes += taken
            return loaded, taken

    def _members(self) -> list[Model]:
        with self._idle:
            return list(self._models)

    def _make_room(self, model: Model, wanted: int) -> None:
        patience = time.monotonic() + _PATIENCE_S
        while self.used_bytes + wanted > self.limit_bytes:
            others = sorted(
                (other for other in self._members() if other is not model and other.memory_bytes),
                key=lambda other: other.last_used,
            )
            with self._idle:
                # The one that was called longest ago and is not running.
                if any(other.unload() for other in others):
                    continue
                # What has an instance already, or would not fit without those that run either, need not wait for them.
                staying = sum(other.memory_bytes for other in others if other.stateful)
                can_wait = others and not model.memory_bytes and staying + wanted <= self.limit_bytes
                left = patience - time.monotonic()
                if can_wait and left > 0:
                    self._idle.wait(left)
                    continue
            raise HybridgeError(
                ErrorCode.MEMORY_BUDGET,
                f"model '{model.name}'",
                received=f"a need of {wanted / 1e6:.1f} MB, with {self.used_bytes / 1e6:.1f} MB in use",
                expected=f"at most {self.limit_bytes / 1e6:.1f} MB together",
                fix="raise the budget, or use a smaller model or fewer at once",
            )


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
