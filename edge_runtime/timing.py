"""Timing functions in one process: warm-up, medians, and ratios of runs taken in turn.

Machines drift; two things are compared by running them in turn and taking the ratio pair by pair.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_runtime.tensor_spec import Array

__all__ = ["Timing", "paired_ratio", "time_runs"]


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds of single runs: median, 95th percentile, smallest, mean, and how many."""

    median_ms: float
    p95_ms: float
    min_ms: float
    mean_ms: float
    runs: int

    @classmethod
    def from_seconds(cls, seconds: Array) -> Timing:
        """Sums up the durations of single runs."""
        milliseconds = np.asarray(seconds, np.float64) * 1e3
        return cls(
            median_ms=float(np.median(milliseconds)),
            p95_ms=float(np.percentile(milliseconds, 95)),
            min_ms=float(milliseconds.min()),
            mean_ms=float(milliseconds.mean()),
            runs=len(milliseconds),
        )


def time_runs(function: Callable[[], object], *, runs: int, warmup: int, min_seconds: float = 0.0) -> Timing:
    """Times single calls, after `warmup` calls that are not counted.

    Args:
        function: What to time.
        runs: At least so many calls are counted.
        warmup: Calls before that.
        min_seconds: Counting goes on until so much time was spent in counted calls.
    """
    for _ in range(warmup):
        function()
    seconds: list[float] = []
    spent = 0.0
    while len(seconds) < runs or spent < min_seconds:
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
        spent += seconds[-1]
    return Timing.from_seconds(np.asarray(seconds))


def paired_ratio(
    ours: Callable[[], object], theirs: Callable[[], object], *, pairs: int, calls: int
) -> tuple[float, Timing, Timing]:
    """How much longer `ours` takes than `theirs`: the median of ratios of blocks run in turn.

    Args:
        ours: One function.
        theirs: The other.
        pairs: Pairs of blocks.
        calls: Calls a block; a block's figure is the median of its calls.

    Returns:
        The ratio, and the timing of each over all blocks.
    """
    blocks: dict[Callable[[], object], list[float]] = {ours: [], theirs: []}
    for pair in range(pairs):
        # Whoever goes second finds warmer caches: turns are taken.
        for function in (ours, theirs) if pair % 2 else (theirs, ours):
            blocks[function].append(time_runs(function, runs=calls, warmup=5).median_ms / 1e3)
    mine, other = np.asarray(blocks[ours]), np.asarray(blocks[theirs])
    return float(np.median(mine / other)), Timing.from_seconds(mine), Timing.from_seconds(other)
