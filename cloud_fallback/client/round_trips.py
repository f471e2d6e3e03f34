"""How long answers of the cloud took lately."""

from __future__ import annotations

import threading
from collections import deque

__all__ = ["RoundTrips"]

_KEPT = 64
# One more of so many changes little: then they are looked at once for as many that have come.
_EVERY = 8
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
        self._last: deque[float] = deque(maxlen=_KEPT)
        self._count = 0
        self._has_faded = False
        self.expected_s: float | None = None
        self.slow_s: float | None = None

    def add(self, seconds: float) -> None:
        """Counts an answer, or one that did not come in so many seconds."""
        with self._lock:
            self._last.append(seconds)
            self._count += 1
            is_due = self._count < _KEPT or self._has_faded or not self._count % _EVERY
            if is_due and self._count >= _ENOUGH:
                self._has_faded = False
                ordered = sorted(self._last)
                self.expected_s = ordered[int(_LOW * len(ordered))]
                self.slow_s = ordered[int(_HIGH * len(ordered))]

    def fade(self) -> None:
        """Expects quicker answers, as a question was not asked for want of time."""
        with self._lock:
            if self.expected_s is not None:
                self.expected_s *= _FADING
                self._has_faded = True
