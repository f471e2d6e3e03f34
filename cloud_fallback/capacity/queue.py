"""Requests that wait in line for the workers of a replica: an M/G/c queue.

Devices are many and independent, so that requests arrive as a Poisson process (Palm and Khinchin: the sum of many thin
streams tends to one), and a replica that is sent a random share of them sees a Poisson process too.

The chance of waiting is Erlang's formula C, exact for exponential service times. The mean wait is Allen and Cunneen's
(A. O. Allen, "Probability, Statistics, and Queueing Theory", Academic Press 1990, section 5.3), which for one worker is
the Pollaczek-Khinchine formula. For several workers whose times vary less than exponential ones, as those of one model
do, it is too short; Kimura's interpolation between exponential and constant times ("A two-moment approximation for the
mean waiting time in the GI/G/s queue", Management Science 32, 1986) corrects that, with the wait for constant times by
Cosmetatos within the bound that Whitt gives it ("Approximations for the GI/G/m queue", Production and Operations
Management 2, 1993). Where times vary more, the interpolation would be too short, and Allen and Cunneen's wait, a little
too long, stands. How the waits of those that wait vary is Whitt's formula there; they get a gamma distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cloud_fallback.capacity.gamma_time import GammaTime

__all__ = ["Queue", "erlang_c"]

# A quantile is looked for among so many times, which leaves it wrong by less than a thousandth.
_STEPS = 2049


def erlang_c(load: float, workers: int) -> float:
    """Probability that a request finds all workers busy and waits; Erlang 1917, for Poisson arrivals.

    Args:
        load: Arrivals in the time that one takes, in 0..`workers`: how many workers they keep busy on average.
        workers: How many there are.

    Example:
        >>> round(erlang_c(8.0, 10), 4)
        0.4092
    """
    if load <= 0:
        return 0.0
    if load >= workers:
        return 1.0
    # So many idle that the chance is below e^-800.
    if workers - load > 40 * math.sqrt(workers):
        return 0.0
    # Of the sum over the states with fewer busy, those far from the mean add nothing.
    states = min(workers, math.ceil(workers - load + 12 * math.sqrt(workers)) + 60)
    with np.errstate(over="ignore"):
        ratios = np.exp(np.cumsum(np.log(np.arange(workers, workers - states, -1) / load)))
    return float(1 / (1 + (1 - load / workers) * ratios.sum()))


@dataclass(frozen=True)
class Queue:
    """One line before a number of workers that take requests in order.

    Args:
        arrivals_per_s: Requests that arrive in a second, on average.
        service: How long a worker takes for one.
        workers: How many there are.
    """

    arrivals_per_s: float
    service: GammaTime
    workers: int

    @property
    def utilisation(self) -> float:
        """Share of the time that a worker is busy; 1 or more is a queue that grows without end."""
        return self.arrivals_per_s * self.service.mean_s / self.workers

    @cached_property
    def waits(self) -> float:
        """Probability that a request has to wait."""
        return erlang_c(self.arrivals_per_s * self.service.mean_s, self.workers)

    @cached_property
    def mean_wait_s(self) -> float:
        """Mean wait of all requests, also those that wait for nothing."""
        if self.utilisation >= 1:
            return math.inf
        idle, variation = 1 - self.utilisation, self.service.cv**2
        exponential = self.waits * self.service.mean_s / (self.workers * idle)
        return exponential * (1 + variation) / 2 * self._correction(idle, variation)

    @property
    def mean_waiting(self) -> float:
        """Requests in line, on average (Little's law)."""
        return self.arrivals_per_s * self.mean_wait_s

    def wait_above(self, times_s: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Probability that a request waits longer than each of `times_s` seconds, in their shape."""
        times = np.asarray(times_s, np.float64)
        if self.utilisation >= 1:
            return np.ones_like(times)
        if not self.waits:
            return np.where(times < 0, 1.0, 0.0)
        return np.where(times < 0, 1.0, self.waits * self._wait_of_those_waiting.above(times))

    def wait_quantile_s(self, share: float) -> float:
        """Seconds that the given share of requests, in 0..1, waits at most."""
        if self.utilisation >= 1:
            return math.inf
        if self.waits <= 1 - share:
            return 0.0
        high = self.mean_wait_s
        while self.wait_above(high) > 1 - share:
            high *= 2
        times = np.linspace(0, high, _STEPS)
        return float(times[np.argmax(self.wait_above(times) <= 1 - share)])

    def late(self, budget_s: float) -> float:
        """Probability that wait and service together take longer than `budget_s` seconds."""
        if budget_s < 0:
            return 1.0
        cells = self.service.cells(budget_s)
        return min(1.0, cells.beyond + float(cells.masses @ self.wait_above(budget_s - cells.middles_s)))

    @cached_property
    def _wait_of_those_waiting(self) -> GammaTime:
        variation = self.service.cv**2
        of_waits = 1 + (1 - self.utilisation) * 2 / 3 * (variation - 1) / (variation + 1)
        return GammaTime(self.mean_wait_s / self.waits, math.sqrt(of_waits))

    def _correction(self, idle: float, variation: float) -> float:
        """What to multiply Allen and Cunneen's mean wait with; 1 for one worker, and for exponential times."""
        if variation >= 1 or self.utilisation <= 0:
            return 1.0
        count = self.workers
        of_constant = min(
            0.24, idle * (count - 1) * (math.sqrt(4 + 5 * count) - 2) / (16 * count * self.utilisation)
        )
        return (1 + of_constant) / (1 + of_constant * variation)
