"""A replica's queue, played event by event: what the formulas are held against."""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np

__all__ = ["simulate"]

Times = np.ndarray[Any, np.dtype[np.float64]]


def simulate(
    arrivals_per_s: float, mean_s: float, *, cv: float, workers: int, count: int = 300_000, seed: int = 1
) -> tuple[Times, Times]:
    """Waits and service times of requests in order of arrival, without those of the first twentieth, in seconds."""
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.exponential(1 / arrivals_per_s, count))
    services = random.gamma(cv**-2, mean_s * cv**2, count) if cv else np.full(count, mean_s)
    free, waits = [0.0] * workers, np.empty(count)
    for index, (arrival, service) in enumerate(zip(arrivals.tolist(), services.tolist(), strict=True)):
        start = max(arrival, free[0])
        waits[index] = start - arrival
        heapq.heapreplace(free, start + service)
    return waits[count // 20 :], services[count // 20 :]
