"""A circuit breaker: after several failures the cloud is left alone for a while, and then tried with care.

The pattern is Nygard's ("Release It!", 2007). Closed, every question is let through. Open, none is, for a time that
doubles each time it did not help and has jitter, so that a fleet does not come back as one. When that time is over the
endpoint is probed, not with anybody's question; if it lives, one question is let through (half-open), and what becomes
of that decides.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["BreakerSettings", "BreakerState", "CircuitBreaker"]

_Count = Annotated[int, Meta(ge=1)]
_Seconds = Annotated[float, Meta(gt=0)]


class BreakerState(StrEnum):
    """Whether questions are let through: all, none, or one to see."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class BreakerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """When a breaker opens, and for how long.

    Attributes:
        failures: Opens after so many failures in a row.
        failure_rate: Opens when so large a share of the last `window` questions failed.
        window: See `failure_rate`.
        open_s: Seconds that it stays open the first time; twice as long each time that the cloud is still away.
        max_open_s: The longest that it stays open.
    """

    failures: _Count = 5
    failure_rate: Annotated[float, Meta(gt=0, le=1)] = 0.5
    window: _Count = 20
    open_s: _Seconds = 1.0
    max_open_s: _Seconds = 60.0


class CircuitBreaker:
    """The breaker of one client; safe from many threads.

    Whoever was let through says what became of it: `succeeded`, `failed`, or `withdrew`.

    Attributes:
        state: Closed, open or half-open.
        openings: How often it opened.
        last_failure: What the failure was that opened it last.
    """

    def __init__(self, settings: BreakerSettings | None = None):
        self._settings = settings or BreakerSettings()
        self._lock = threading.Lock()
        self._outcomes: deque[bool] = deque(maxlen=self._settings.window)
        self._in_a_row = 0
        self._times_in_vain = 0
        self._until = 0.0
        self._is_taken = False
        self.state = BreakerState.CLOSED
        self.openings = 0
        self.last_failure = ""

    def admits(self) -> bool:
        """Whether a question may be asked now; half-open, one at a time."""
        state = self.state
        if state is not BreakerState.HALF_OPEN:
            return state is BreakerState.CLOSED
        with self._lock:
            if self._is_taken:
                return False
            self._is_taken = self.state is BreakerState.HALF_OPEN
            return self.state is not BreakerState.OPEN

    def wants_probe(self) -> bool:
        """Whether the endpoint should be probed now: to one caller, once each time that the open time is over."""
        if self.state is not BreakerState.OPEN or time.monotonic() < self._until:
            return False
        with self._lock:
            if self.state is not BreakerState.OPEN or time.monotonic() < self._until or self._is_taken:
                return False
            self._is_taken = True
            return True

    def probed(self, *, alive: bool) -> None:
        """What a probe found."""
        with self._lock:
            if self.state is not BreakerState.OPEN:
                return
            self._is_taken = False
            if alive:
                self.state = BreakerState.HALF_OPEN
            else:
                self._open()

    def reconnected(self) -> None:
        """The endpoint was away, and a connection was made again."""
        with self._lock:
            if self.state is BreakerState.OPEN:
                self.state = BreakerState.HALF_OPEN
                self._is_taken = False

    def succeeded(self) -> None:
        """A question was answered, or refused by an endpoint that is well."""
        with self._lock:
            self._outcomes.append(True)
            self._in_a_row = 0
            if self.state is BreakerState.HALF_OPEN:
                self.state = BreakerState.CLOSED
                self._is_taken = False
                self._times_in_vain = 0
                self._outcomes.clear()

    def failed(self, what: str) -> None:
        """A question was not answered; `what` says why, for a person."""
        with self._lock:
            self._outcomes.append(False)
            self._in_a_row += 1
            # One that was asked before it opened says nothing new.
            if self.state is BreakerState.OPEN:
                return
            if self.state is BreakerState.HALF_OPEN or self._is_too_much():
                self.last_failure = what
                self.openings += self.state is BreakerState.CLOSED
                self._is_taken = False
                self._open()

    def withdrew(self) -> None:
        """Who was let through did not ask after all."""
        if self.state is not BreakerState.CLOSED:
            with self._lock:
                self._is_taken = self._is_taken and self.state is not BreakerState.HALF_OPEN

    def _is_too_much(self) -> bool:
        settings = self._settings
        if self._in_a_row >= settings.failures:
            return True
        failures = self._outcomes.count(False)
        return len(self._outcomes) == settings.window and failures >= settings.failure_rate * settings.window

    def _open(self) -> None:
        settings = self._settings
        # Far beyond any limit, and no number grows without one.
        longest = min(settings.open_s * 2 ** min(self._times_in_vain, 32), settings.max_open_s)
        self.state = BreakerState.OPEN
        self._until = time.monotonic() + longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        self._times_in_vain += 1
        self._in_a_row = 0
        self._outcomes.clear()
