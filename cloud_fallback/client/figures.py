"""What a fallback did since it was made, in numbers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from cloud_fallback.client.breaker import BreakerState
from cloud_fallback.policy import Action
from edge_runtime.errors import ErrorCode
from edge_runtime.prediction import Reason

__all__ = ["Counts", "FallbackFigures"]


@dataclass(frozen=True, slots=True)
class FallbackFigures:
    """A fallback at one moment; counts are since it was made.

    Attributes:
        decisions: Queries by what was done about them and why; those answered by the cloud or by what is at hand are
            `Action.ASK` with `Reason.UNSURE`.
        asked: Questions sent, without second attempts.
        answered: Of these, the ones that were answered.
        failures: The others, by error code.
        cache_hits: Answers from the cache.
        cache_misses: Queries that it had no answer to.
        table_hits: Answers from the table of precomputed ones.
        hedges: Second attempts, sent while the first was under way.
        hedges_won: Of these, the ones whose answer came first.
        deferred: Questions put into the outbox.
        outbox_failures: Questions that it did not take.
        bytes_sent: Size of the questions, second attempts too, before compression.
        bytes_received: Size of the answers.
        bytes_saved: What the questions' arrays took more before they were shrunk.
        probes: Calls that only looked whether the endpoint is there.
        breaker: Whether questions are let through.
        breaker_openings: How often they no longer were.
        is_offline: Whether the endpoint cannot be reached.
        expected_ms: Milliseconds that a quick answer takes, or None before that is known.
    """

    decisions: Mapping[tuple[Action, Reason], int]
    asked: int
    answered: int
    failures: Mapping[ErrorCode, int]
    cache_hits: int
    cache_misses: int
    table_hits: int
    hedges: int
    hedges_won: int
    deferred: int
    outbox_failures: int
    bytes_sent: int
    bytes_received: int
    bytes_saved: int
    probes: int
    breaker: BreakerState
    breaker_openings: int
    is_offline: bool
    expected_ms: float | None


class Counts:
    """Counters that many threads add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._decisions: Counter[tuple[Action, Reason]] = Counter()
        self._failures: Counter[ErrorCode] = Counter()
        self._counts: Counter[str] = Counter()

    def decided(self, action: Action, reason: Reason) -> None:
        """Counts a query."""
        key = (action, reason)
        with self._lock:
            self._decisions[key] += 1

    def failed(self, code: ErrorCode, request_bytes: int) -> None:
        """Counts a question that was not answered."""
        with self._lock:
            self._failures[code] += 1
            self._counts["asked"] += 1
            self._counts["bytes_sent"] += request_bytes

    def add(self, **amounts: int) -> None:
        """Adds to counters that `FallbackFigures` names."""
        with self._lock:
            for name, amount in amounts.items():
                self._counts[name] += amount

    def figures(
        self, *, breaker: BreakerState, breaker_openings: int, is_offline: bool, expected_ms: float | None
    ) -> FallbackFigures:
        """All of them at this moment, with what is no counter."""
        with self._lock:
            names = (
                *("asked", "answered", "cache_hits", "cache_misses", "table_hits", "hedges", "hedges_won"),
                *("deferred", "outbox_failures", "bytes_sent", "bytes_received", "bytes_saved", "probes"),
            )
            return FallbackFigures(
                decisions=dict(self._decisions),
                failures=dict(self._failures),
                **{name: self._counts[name] for name in names},
                breaker=breaker,
                breaker_openings=breaker_openings,
                is_offline=is_offline,
                expected_ms=expected_ms,
            )
