"""What a chain did since it was loaded: counts, latencies by stage, where answers came from, what was dropped."""

from __future__ import annotations

import logging
import threading
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edge_runtime.prediction import Reason

if TYPE_CHECKING:
    from edge_runtime.errors import HybridgeError
    from edge_runtime.fallback import Measured
    from edge_runtime.prediction import Prediction, StageTrace

__all__ = [
    "Backlog",
    "ChainFigures",
    "HasBacklog",
    "Latencies",
    "Measure",
    "Metrics",
    "StageFigures",
    "resident_bytes",
]

_log = logging.getLogger(__name__)
# Percentiles are of so many of the last runs.
_KEPT = 1024


class Latencies:
    """The last milliseconds of something, how many there were in all and how long they took together."""

    __slots__ = ("_last", "count", "total_ms")

    def __init__(self) -> None:
        # Its items are set faster than a NumPy array's.
        self._last = array("f", bytes(4 * _KEPT))
        self.count = 0
        self.total_ms = 0.0

    def add(self, milliseconds: float) -> None:
        """Counts one."""
        self._last[self.count % _KEPT] = milliseconds
        self.count += 1
        self.total_ms += milliseconds

    def percentiles(self) -> tuple[float, float, float]:
        """50th, 95th and 99th percentile of the last ones; zero before the first."""
        if not self.count:
            return 0.0, 0.0, 0.0
        last = np.frombuffer(self._last, np.float32, count=min(self.count, _KEPT))
        p50, p95, p99 = np.percentile(last, (50, 95, 99))
        return float(p50), float(p95), float(p99)


@dataclass(frozen=True, slots=True)
class Measure:
    """A number of something that a stage uses, such as its fallback, for metrics to show beside the stage's own.

    Attributes:
        name: Words joined by underscores, as Prometheus has them, the unit last.
        text: What it is, in a sentence.
        value: The number, in seconds and bytes where it has a unit.
        labels: What tells it from others of its name.
        is_count: Whether it only grows.
    """

    name: str
    text: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    is_count: bool = True


@dataclass(frozen=True, slots=True)
class StageFigures:
    """One stage: runs, failures, items, latency in milliseconds, answers by source and reason, and those refused."""

    stage: str
    runs: int
    errors: int
    skipped: int
    items: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    total_ms: float
    sources: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    refused: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class ChainFigures:
    """A chain at one moment.

    Attributes:
        chain: Its name.
        runs: Answers given.
        errors: Runs that failed, by error code.
        dropped: Frames of streams that were dropped, by why: a full queue's policy, or `chain-late`.
        sources: Answers by where they came from.
        p50_ms: Median latency of a run, and so on.
        queue_depth: Frames that wait at the entrance of running streams.
        in_flight: Frames under way in running streams.
        memory_bytes: Resident memory of the process.
        stages: Each stage.
    """

    chain: str
    runs: int
    errors: Mapping[str, int]
    dropped: Mapping[str, int]
    sources: Mapping[str, int]
    p50_ms: float
    p95_ms: float
    p99_ms: float
    total_ms: float
    queue_depth: int
    in_flight: int
    memory_bytes: int
    stages: tuple[StageFigures, ...]


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a stream holds at one moment.

    Attributes:
        queue_depth: Frames that wait at its entrance.
        in_flight: Frames under way.
        waiting: Frames that wait for a stage, by its name.
    """

    queue_depth: int
    in_flight: int
    waiting: Counter[str]


class HasBacklog(Protocol):
    """A stream, as metrics see it."""

    def backlog(self) -> Backlog:
        """What it holds at this moment; called from any thread."""
        ...


class _Stage:
    __slots__ = ("errors", "items", "latencies", "reasons", "refused", "skipped", "sources")

    def __init__(self) -> None:
        self.latencies = Latencies()
        self.errors = 0
        self.skipped = 0
        self.items = 0
        self.refused = 0
        self.sources: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()


class Metrics:
    """Counts what a chain does; `figures` reads it at any time, from any thread.

    Args:
        chain: The chain's name.
        stages: Names of its stages.
    """

    def __init__(self, chain: str, stages: Sequence[str]):
        self.chain = chain
        self._stages = {name: _Stage() for name in stages}
        self._latencies = Latencies()
        self._errors: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._sources: Counter[str] = Counter()
        self._streams: list[HasBacklog] = []
        self._fallbacks: dict[str, Measured] = {}
        self._lock = threading.Lock()

    def stage_ran(
        self, stage: str, milliseconds: float, trace: StageTrace, *, items: Sequence[StageTrace] = ()
    ) -> None:
        """Counts one run of a stage; `items` are what it says of each of its items, where it has such."""
        kept = self._stages[stage]
        with self._lock:
            kept.latencies.add(milliseconds)
            kept.items += len(items)
            for each in items or (trace,):
                if each.confidence is not None or each.reason is not Reason.NO_FALLBACK:
                    kept.sources[each.source] += 1
                    kept.reasons[each.reason] += 1
                    kept.refused += each.refused

    def stage_skipped(self, stage: str) -> None:
        """Counts one run in which a stage was passed over."""
        with self._lock:
            self._stages[stage].skipped += 1

    def stage_failed(self, stage: str) -> None:
        """Counts one run of a stage that raised."""
        with self._lock:
            self._stages[stage].errors += 1

    def chain_ran(self, prediction: Prediction) -> None:
        """Counts one answer."""
        with self._lock:
            self._latencies.add(prediction.elapsed_ms)
            self._sources[prediction.source] += 1

    def chain_failed(self, error: HybridgeError) -> None:
        """Counts one run that gave no answer."""
        with self._lock:
            self._errors[error.code] += 1

    def frame_dropped(self, why: str) -> None:
        """Counts one frame of a stream that was dropped."""
        with self._lock:
            self._dropped[why] += 1

    def stream_began(self, stream: HasBacklog) -> None:
        """Asks a stream, from now on, what it holds whenever figures are read."""
        with self._lock:
            self._streams.append(stream)

    def stream_ended(self, stream: HasBacklog) -> None:
        """Asks a stream no more."""
        with self._lock:
            self._streams.remove(stream)

    def stage_asks(self, stage: str, fallback: Measured) -> None:
        """Has what a stage's fallback counts among the measures from now on."""
        with self._lock:
            self._fallbacks[stage] = fallback

    def measures(self) -> dict[str, list[Measure]]:
        """What the fallbacks count at this moment, by stage."""
        with self._lock:
            fallbacks = dict(self._fallbacks)
        measures = {}
        for stage, fallback in fallbacks.items():
            try:
                measures[stage] = list(fallback.figures().measures())
            except Exception:
                # It may be of another package, or its outbox damaged; the other numbers are wanted all the more.
                _log.warning("no figures of the fallback of stage '%s'", stage, exc_info=True)
        return measures

    def figures(self) -> ChainFigures:
        """Everything at this moment."""
        # Asked before the lock is taken: a stream that holds its own may be waiting for this one.
        backlogs = [stream.backlog() for stream in list(self._streams)]
        with self._lock:
            p50, p95, p99 = self._latencies.percentiles()
            return ChainFigures(
                self.chain,
                self._latencies.count,
                dict(self._errors),
                dict(self._dropped),
                dict(self._sources),
                p50,
                p95,
                p99,
                self._latencies.total_ms,
                sum(backlog.queue_depth for backlog in backlogs),
                sum(backlog.in_flight for backlog in backlogs),
                resident_bytes(),
                tuple(
                    StageFigures(
                        name,
                        kept.latencies.count,
                        kept.errors,
                        kept.skipped,
                        kept.items,
                        *kept.latencies.percentiles(),
                        kept.latencies.total_ms,
                        dict(kept.sources),
                        dict(kept.reasons),
                        kept.refused,
                        sum(backlog.waiting[name] for backlog in backlogs),
                    )
                    for name, kept in self._stages.items()
                ),
            )


def resident_bytes() -> int:
    """Resident memory of this process (Linux; elsewhere zero, rather than a guess)."""
    try:
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    except OSError:
        return 0
    import resource

    return pages * resource.getpagesize()
