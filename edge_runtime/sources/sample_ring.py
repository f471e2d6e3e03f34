"""The samples between a microphone's thread and the one that takes windows of them."""

from __future__ import annotations

import threading

import numpy as np

from edge_runtime.tensor_spec import Array

__all__ = ["SampleRing"]


class SampleRing:
    """The newest `capacity` samples, float32. What nobody took in time is overwritten, and counted.

    Args:
        capacity: In samples; at least the longest window that is read.
    """

    def __init__(self, capacity: int):
        self._samples = np.zeros(capacity, np.float32)
        self._written = 0  # samples ever written, and where the next window starts among them
        self._next = 0
        self._lost = 0
        self._more = threading.Condition()

    @property
    def lost(self) -> int:
        """Samples that were overwritten before a window had them."""
        return self._lost

    def write(self, samples: Array) -> None:
        """Adds samples of shape (n,); never waits for a reader."""
        capacity = len(self._samples)
        with self._more:
            end = self._written + len(samples)
            kept = samples[-capacity:]
            at = (end - len(kept)) % capacity
            first = min(len(kept), capacity - at)
            self._samples[at : at + first] = kept[:first]
            self._samples[: len(kept) - first] = kept[first:]
            self._written = end
            if end - self._next > capacity:
                self._lost += end - capacity - self._next
                self._next = end - capacity
            self._more.notify_all()

    def read(self, window: int, hop: int, *, timeout_s: float) -> tuple[int, Array] | None:
        """The next `window` samples and the number of the first, or None when they do not come in time.

        The window after it starts `hop` samples later.
        """
        capacity = len(self._samples)
        with self._more:
            if not self._more.wait_for(lambda: self._written - self._next >= window, timeout_s):
                return None
            start, at = self._next, self._next % capacity
            first = min(window, capacity - at)
            samples = np.concatenate([self._samples[at : at + first], self._samples[: window - first]])
            self._next += hop
            return start, samples
