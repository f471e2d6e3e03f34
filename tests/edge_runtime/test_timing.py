from __future__ import annotations

import time

import numpy as np

from edge_runtime.timing import Timing, paired_ratio, time_runs


def test_timing_counts_what_it_is_asked_to() -> None:
    calls: list[int] = []
    timing = time_runs(lambda: calls.append(1), runs=7, warmup=3)
    assert (len(calls), timing.runs) == (10, 7)
    seconds = np.array([1.0, 2.0, 3.0, 4.0, 100.0])
    assert Timing.from_seconds(seconds).median_ms == 3000
    started = time.perf_counter()
    time_runs(lambda: time.sleep(0.001), runs=1, warmup=0, min_seconds=0.1)
    assert time.perf_counter() - started > 0.1


def test_a_ratio_of_paired_runs_finds_what_takes_twice_as_long() -> None:
    ratio, ours, theirs = paired_ratio(lambda: time.sleep(0.004), lambda: time.sleep(0.002), pairs=5, calls=5)
    assert 1.5 < ratio < 2.5
    assert ours.median_ms > theirs.median_ms
