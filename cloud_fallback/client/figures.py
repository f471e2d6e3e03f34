"""What a fallback did since it was made, in numbers."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloud_fallback.client.breaker import BreakerState
from cloud_fallback.policy import Action
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.metrics import Measure
from edge_runtime.prediction import Reason

if TYPE_CHECKING:
    from cloud_fallback.outbox import Outbox, OutboxFigures

__all__ = ["Counts", "FallbackFigures"]

_log = logging.getLogger(__name__)
_COUNTS = {
    "asked": "Questions sent to the cloud.",
    "answered": "Questions that the cloud answered.",
    "cache_hits": "Answers from the cache.",
    "cache_misses": "Queries that the cache had no answer to.",
    "table_hits": "Answers from the table of precomputed ones.",
    "hedges": "Second attempts.",
    "hedges_won": "Second attempts whose answer came first.",
    "deferred": "Questions put into the outbox.",
    "outbox_failures": "Questions that the outbox did not take.",
    "bytes_sent": "Size of the questions.",
    "bytes_received": "Size of the answers.",
    "bytes_saved": "What the questions took more before they were shrunk.",
    "probes": "Calls that only looked whether the endpoint is there.",
    "breaker_openings": "How often the endpoint was left alone.",
}


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
        outbox: What the outbox holds and has done, or None where there is none to be read; others may
            share it.
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
    outbox: OutboxFigures | None = None

    def measures(self) -> Iterator[Measure]:
        """The same for who shows it."""
        for (action, reason), count in self.decisions.items():
            labels = {"action": str(action), "reason": str(reason)}
            yield Measure("fallback_decisions", "Queries by what was done about them and why.", count, labels)
        for code, count in self.failures.items():
            text = "Questions that were not answered, by error code."
            yield Measure("fallback_failures", text, count, {"code": str(code)})
        for name, text in _COUNTS.items():
            yield Measure(f"fallback_{name}", text, getattr(self, name))
        for state in BreakerState:
            text, is_in = "1 for the state that the breaker is in.", state is self.breaker
            yield Measure("fallback_breaker_state", text, is_in, {"state": str(state)}, is_count=False)
        text = "Whether the endpoint cannot be reached."
        yield Measure("fallback_offline", text, self.is_offline, is_count=False)
        if self.expected_ms is not None:
            text = "How long a quick answer takes."
            yield Measure("fallback_expected_seconds", text, self.expected_ms / 1e3, is_count=False)
        if self.outbox is not None:
            yield from self.outbox.measures()


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

    def answered(self, request_bytes: int, answer_bytes: int) -> None:
        """Counts a question that was answered."""
        counts = self._counts
        with self._lock:
            counts["asked"] += 1
            counts["answered"] += 1
            counts["bytes_sent"] += request_bytes
            counts["bytes_received"] += answer_bytes

    def add(self, **amounts: int) -> None:
        """Adds to counters that `FallbackFigures` names."""
        with self._lock:
            for name, amount in amounts.items():
                self._counts[name] += amount

    def figures(
        self,
        *,
        breaker: BreakerState,
        breaker_openings: int,
        is_offline: bool,
        expected_ms: float | None,
        outbox: Outbox | None,
    ) -> FallbackFigures:
        """All of them at this moment, with what is no counter."""
        held = _held(outbox)
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
                outbox=held,
            )


def _held(outbox: Outbox | None) -> OutboxFigures | None:
    if outbox is None or outbox.is_closed:
        return None
    try:
        return outbox.figures()
    except HybridgeError as error:
        # Closed meanwhile, or damaged: the other figures are wanted all the more.
        _log.warning("no figures of the outbox: %s", error.message)
        return None
