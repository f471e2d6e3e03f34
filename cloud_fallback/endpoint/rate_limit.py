"""How often a client may ask, and how much it may send."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["ClientRate", "RateLimit", "TokenBucket"]

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What one client may do.

    Attributes:
        requests_per_second: Calls on average; None or infinity for any number.
        burst: Calls that may come at once after a pause; without it, those of one second.
        bytes_per_second: Size of what is sent on average; None or infinity for any size. A message is taken whole,
            also one that is larger: the next then waits until it is paid for.
    """

    requests_per_second: float | None = None
    burst: int | None = None
    bytes_per_second: float | None = None


class TokenBucket:
    """Fills at a steady rate up to a size, and is drawn from (ITU-T I.371, "leaky bucket"); safe from many threads.

    Args:
        rate: What comes in, each second.
        size: The most it holds; it begins full.
        clock: Seconds that only go forward.
    """

    def __init__(self, rate: float, size: float, *, clock: Clock = time.monotonic):
        self._rate, self._size, self._clock = rate, size, clock
        self._level, self._since = size, clock()
        self._lock = threading.Lock()

    def take(self, amount: float) -> float:
        """Takes an amount if it is there; gives the seconds until it will be, which are 0 when it was."""
        with self._lock:
            self._fill()
            if self._level >= amount:
                self._level -= amount
                return 0.0
            return (amount - self._level) / self._rate

    def owe(self, amount: float) -> None:
        """Takes an amount whether it is there or not."""
        with self._lock:
            self._fill()
            self._level -= amount

    def _fill(self) -> None:
        now = self._clock()
        self._level = min(self._size, self._level + (now - self._since) * self._rate)
        self._since = now


class ClientRate:
    """Holds one client to its limit.

    Args:
        limit: What it may do.
        clock: Seconds that only go forward.
    """

    def __init__(self, limit: RateLimit, *, clock: Clock = time.monotonic):
        self.limit = limit
        self._requests = self._bytes = None
        calls, size = limit.requests_per_second, limit.bytes_per_second
        if calls is not None and math.isfinite(calls):
            self._requests = TokenBucket(calls, max(1.0, limit.burst or calls), clock=clock)
        if size is not None and math.isfinite(size):
            self._bytes = TokenBucket(size, size, clock=clock)

    def ask(self) -> float:
        """Counts a call that may be made now; gives the seconds until it may otherwise."""
        # First what takes nothing: a call that is refused must not count.
        wait_s = self._bytes.take(0.0) if self._bytes is not None else 0.0
        if wait_s == 0 and self._requests is not None:
            wait_s = self._requests.take(1.0)
        return wait_s

    def sent(self, size: int) -> None:
        """Counts the bytes of a call's message."""
        if self._bytes is not None:
            self._bytes.owe(size)
