"""How fast requests go out: a bounded rate while all is well, and ever longer waits while it is not."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

__all__ = ["Backoff", "Pace"]

# Keys that have not failed lately are forgotten when there are so many.
_REMEMBERED = 1024


class Pace:
    """Spaces requests so that neither their number nor their bytes exceed a rate; what was not used is not saved up.

    Args:
        requests_per_s: Requests a second.
        bytes_per_s: Bytes of their bodies a second. A large one goes out at once, and the next waits the longer.
    """

    def __init__(self, requests_per_s: float, bytes_per_s: float):
        self._seconds_a_request, self._seconds_a_byte = 1 / requests_per_s, 1 / bytes_per_s
        self._next_request_s = self._next_byte_s = -math.inf

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next request may go."""
        return max(self._next_request_s - now_s, self._next_byte_s - now_s, 0.0)

    def spend(self, now_s: float, size: int) -> None:
        """Counts a request of so many bytes that goes now."""
        self._next_request_s = max(self._next_request_s, now_s) + self._seconds_a_request
        self._next_byte_s = max(self._next_byte_s, now_s) + size * self._seconds_a_byte


@dataclass
class _Trouble:
    failures: int
    until_s: float
    since_s: float


class Backoff:
    """Says how long to leave alone what has failed: a random time up to a bound that doubles with each failure.

    "Full jitter", which spreads the devices that a broken endpoint meets again when it is back (Brooker, "Exponential
    Backoff and Jitter", AWS Architecture Blog, 2015).

    Args:
        first_s: The bound after one failure, in seconds.
        max_s: The largest bound.
    """

    def __init__(self, first_s: float, max_s: float):
        self._first_s, self._max_s = first_s, max_s
        self._troubles: dict[str, _Trouble] = {}

    def failed(self, key: str, now_s: float, *, began_s: float = math.inf, at_least_s: float = 0.0) -> float:
        """Counts a failure and returns the seconds to wait.

        Args:
            key: What failed.
            now_s: The moment.
            began_s: When the attempt began. Of several that were under way together only the first to fail counts.
            at_least_s: What it asked for itself; heeded up to the largest bound.
        """
        trouble = self._troubles.get(key)
        if trouble is None:
            self._forget_old(now_s)
            trouble = self._troubles[key] = _Trouble(0, now_s, -math.inf)
        if began_s >= trouble.since_s:
            trouble.failures += 1
            # Beyond 2^63 the bound has long been reached.
            bound_s = min(self._max_s, self._first_s * 2.0 ** min(trouble.failures - 1, 63))
            trouble.until_s = now_s + random.uniform(0, bound_s)  # noqa: S311 - nobody is to be surprised by it
            trouble.since_s = now_s
        trouble.until_s = max(trouble.until_s, now_s + min(at_least_s, self._max_s))
        return trouble.until_s - now_s

    def succeeded(self, key: str) -> None:
        """Forgets its failures."""
        self._troubles.pop(key, None)

    def clear(self) -> None:
        """Forgets all failures."""
        self._troubles.clear()

    def is_in_trouble(self, key: str) -> bool:
        """Whether it failed last."""
        return key in self._troubles

    def rests(self, key: str, now_s: float) -> bool:
        """Whether it is to be left alone now."""
        trouble = self._troubles.get(key)
        return trouble is not None and trouble.until_s > now_s

    def resting(self, now_s: float) -> set[str]:
        """All that are to be left alone now."""
        return {key for key, trouble in self._troubles.items() if trouble.until_s > now_s}

    def next_s(self, now_s: float) -> float:
        """Seconds until the first of those may be tried again; infinite when there are none."""
        waits = (trouble.until_s - now_s for trouble in self._troubles.values())
        return min((wait for wait in waits if wait > 0), default=math.inf)

    def _forget_old(self, now_s: float) -> None:
        if len(self._troubles) >= _REMEMBERED:
            self._troubles = {k: t for k, t in self._troubles.items() if t.until_s > now_s}
