"""The queue's formulas: known values, and a simulation of the queue that they stand for."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from cloud_fallback.capacity import GammaTime, Queue
from cloud_fallback.capacity.queue import erlang_c
from tests.cloud_fallback.capacity.simulation import simulate


# Erlang's own formula, in whole numbers: no recursion, no logarithms.
def _by_definition(load: Fraction, workers: int) -> float:
    states = [load**busy / math.factorial(busy) for busy in range(workers)]
    waiting = load**workers / math.factorial(workers) / (1 - load / workers)
    return float(waiting / (sum(states) + waiting))


@pytest.mark.parametrize(
    ("load", "workers", "waits"),
    [(1.0, 2, 0.3333), (4.0, 5, 0.5541), (8.0, 10, 0.4092), (16.0, 20, 0.2561), (90.0, 100, 0.2169)],
)
def test_erlang_c_has_the_values_of_published_tables(load: float, workers: int, waits: float) -> None:
    assert erlang_c(load, workers) == pytest.approx(waits, abs=5e-5)


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 30, 150])
@pytest.mark.parametrize(
    "utilisation", [Fraction(1, 100), Fraction(1, 2), Fraction(9, 10), Fraction(999, 1000)]
)
def test_erlang_c_is_its_definition_in_exact_arithmetic(workers: int, utilisation: Fraction) -> None:
    load = utilisation * workers
    assert erlang_c(float(load), workers) == pytest.approx(_by_definition(load, workers), rel=1e-9)


def test_erlang_c_at_its_ends() -> None:
    assert erlang_c(0.0, 4) == 0
    assert erlang_c(4.0, 4) == erlang_c(9.0, 4) == 1
    # Half of a million workers idle: nobody waits, and nothing overflows.
    assert erlang_c(5e5, 1_000_000) == 0
    assert erlang_c(5e11, 1_000_000_000_000) == 0


def test_many_workers_come_to_the_limit_of_halfin_and_whitt() -> None:
    # A load of n - sqrt(n) on n workers: 1 / (1 + Phi(1) / phi(1)) of the requests wait.
    workers = 1_000_000
    assert erlang_c(workers - math.sqrt(workers), workers) == pytest.approx(0.2234, abs=5e-4)


def test_one_worker_is_pollaczek_and_khinchine() -> None:
    for cv in (0.0, 0.5, 1.0, 2.0):
        queue = Queue(0.7, GammaTime(1.0, cv), 1)
        assert queue.mean_wait_s == pytest.approx(0.7 * (1 + cv**2) / (2 * 0.3))
        assert queue.mean_waiting == pytest.approx(0.7 * queue.mean_wait_s)


def test_exponential_times_give_the_exact_waits_of_that_queue() -> None:
    queue = Queue(160.0, GammaTime(0.012, 1.0), 3)
    times = np.linspace(0, 0.2, 50)
    rate = 3 / 0.012 - 160.0
    assert queue.wait_above(times) == pytest.approx(erlang_c(1.92, 3) * np.exp(-rate * times), rel=1e-9)
    # Wait and service together, as the sum of two times, one of them exponential.
    served, waits, ahead = 1 / 0.012, queue.waits, rate
    late = np.exp(-served * 0.05) + waits * served / (served - ahead) * (
        np.exp(-ahead * 0.05) - np.exp(-served * 0.05)
    )
    assert queue.late(0.05) == pytest.approx(late, rel=1e-5)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("cv", [0.0, 0.3, 1.0, 1.5])
def test_waits_and_late_answers_are_those_of_a_simulation(cv: float, workers: int) -> None:
    _holds_against_a_simulation(0.7, cv, workers)


@pytest.mark.parametrize("utilisation", [0.3, 0.8])
def test_the_simulation_agrees_at_low_and_at_high_loads(utilisation: float) -> None:
    _holds_against_a_simulation(utilisation, 0.5, 2)


def test_times_that_vary_much_are_planned_for_on_the_safe_side() -> None:
    waits, _ = simulate(0.5 * 4 / 0.012, 0.012, cv=2.5, workers=4)
    assert 1 <= Queue(0.5 * 4 / 0.012, GammaTime(0.012, 2.5), 4).mean_wait_s / waits.mean() <= 1.25


def _holds_against_a_simulation(utilisation: float, cv: float, workers: int) -> None:
    arrivals = utilisation * workers / 0.012
    waits, services = simulate(arrivals, 0.012, cv=cv, workers=workers)
    queue = Queue(arrivals, GammaTime(0.012, cv), workers)
    assert queue.mean_wait_s == pytest.approx(waits.mean(), rel=0.08)
    assert queue.waits == pytest.approx((waits > 0).mean(), rel=0.06)
    assert queue.wait_quantile_s(0.99) == pytest.approx(np.quantile(waits, 0.99), rel=0.1)
    # The deadline that one answer in a hundred misses in the simulation, which knows that share to a tenth of it.
    assert queue.late(float(np.quantile(waits + services, 0.99))) == pytest.approx(0.01, rel=0.25)


def test_a_queue_that_is_too_busy_has_no_end() -> None:
    for arrivals in (100.0, 250.0):
        queue = Queue(arrivals, GammaTime(0.01, 1.0), 1)
        assert queue.mean_wait_s == queue.wait_quantile_s(0.5) == math.inf
        assert queue.late(10.0) == 1


def test_an_empty_queue_waits_for_nothing() -> None:
    queue = Queue(0.0, GammaTime(0.01, 0.0), 2)
    assert queue.mean_wait_s == queue.mean_waiting == queue.wait_quantile_s(0.99) == 0
    assert (queue.late(0.009), queue.late(0.011)) == (1, 0)


def test_more_arrivals_are_never_answered_sooner() -> None:
    for cv in (0.0, 0.4, 1.0, 2.0):
        for workers in (1, 2, 8):
            late = [
                Queue(share * workers / 0.01, GammaTime(0.01, cv), workers).late(0.05)
                for share in np.linspace(0, 0.99, 34)
            ]
            assert np.all(np.diff(late) >= -1e-12)
