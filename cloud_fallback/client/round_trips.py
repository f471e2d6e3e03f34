"""How long answers of the cloud took lately."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections import deque

__all__ = ["RoundTrips"]

_KEPT = 64
# A first round trip has a connection to make, and a few are no quantile.
_ENOUGH = 8
_LOW, _HIGH = 0.2, 0.95
_FADING = 0.9


class RoundTrips:
    """The last 64 round trips, in seconds; safe from many threads.

    Whether there is time for a question is judged by the 20th percentile: the question is worth asking unless even a
    quick answer would be late, and a few slow ones move a low quantile little. Each time that it stands in the way it
    fades, so that one slow hour does not end asking for ever, and a question that is asked then shows how it is now.

    Attributes:
        expected_s: Seconds that an answer takes when it is quick, or None before enough are known.
        slow_s: The 95th percentile, or None.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: deque[float] = deque()
        self._ordered: list[float] = []
        self.expected_s: float | None = None
        self.slow_s: float | None = None

    def add(self, seconds: float) -> None:
        """Counts an answer, or one that did not come in so many seconds."""
        with self._lock:
            self._last.append(seconds)
            insort(self._ordered, seconds)
            if len(self._last) > _KEPT:
                del self._ordered[bisect_left(self._ordered, self._last.popleft())]
            count = len(self._ordered)
            if count >= _ENOUGH:
                self.expected_s = self._ordered[int(_LOW * count)]
                self.slow_s = self._ordered[int(_HIGH * count)]

    def fade(self) -> None:
        """Expects quicker answers, as a question was not asked for want of time."""
        with self._lock:
            if self.expected_s is not None:
                self.expected_s *= _FADING
