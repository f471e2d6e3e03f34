"""What is expected of the next answer, from those before."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cloud_fallback.client.hedging import Hedge, HedgeCredit
from cloud_fallback.client.round_trips import RoundTrips


def _filled(*seconds: float) -> RoundTrips:
    trips = RoundTrips()
    for each in seconds:
        trips.add(each)
    return trips


def test_nothing_is_expected_before_enough_is_known() -> None:
    trips = _filled(*[0.5] * 7)
    assert (trips.expected_s, trips.slow_s) == (None, None)
    trips.add(0.5)
    assert (trips.expected_s, trips.slow_s) == (0.5, 0.5)


def test_they_are_quantiles_of_the_last_64() -> None:
    generator = random.Random(1)
    seconds = [generator.expovariate(10) for _ in range(504)]
    trips = _filled(*seconds)
    low, high = np.quantile(seconds[-64:], (0.2, 0.95), method="higher")
    assert trips.expected_s is not None
    assert abs(trips.expected_s - low) < 0.01
    assert trips.slow_s is not None
    assert abs(trips.slow_s - high) < 0.1


def test_slow_answers_do_not_end_asking() -> None:
    trips = _filled(*[0.01] * 60, *[5.0] * 10)
    assert trips.expected_s == 0.01
    trips = _filled(*[5.0] * 64)
    faded = 0
    while (trips.expected_s or 0.0) > 0.2:
        trips.fade()
        faded += 1
    assert faded < 40
    # The question that is then asked shows how it is.
    trips.add(5.0)
    assert trips.expected_s == 5.0


def test_many_threads_leave_it_whole() -> None:
    trips = RoundTrips()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda index: trips.add(index % 7 / 100), range(5000)))
    assert trips.expected_s in {index / 100 for index in range(7)}
    assert len(trips._last) == 64


def test_a_second_attempt_leaves_each_its_part_of_the_deadline() -> None:
    known = _filled(*[0.01] * 63, 0.04)
    assert Hedge().delay_s(RoundTrips(), 0.2) == 0.1
    assert Hedge().delay_s(known, 0.2) == 0.01
    assert Hedge().delay_s(_filled(*[0.01] * 32, *[0.19] * 32), 0.2) == 0.1
    assert Hedge(after_ms=30).delay_s(known, 0.2) == 0.03
    # It would not come to anything.
    assert Hedge(after_ms=195).delay_s(known, 0.2) is None
    assert Hedge(after_ms=300).delay_s(RoundTrips(), 0.2) is None
    assert Hedge().delay_s(_filled(*[0.15] * 10), 0.2) is None


def test_second_attempts_are_a_share_of_the_questions() -> None:
    credit = HedgeCredit(0.1)
    spent = 0
    for _ in range(1000):
        credit.earn()
        spent += credit.spend()
    assert spent == 100
    for _ in range(1000):
        credit.earn()
    # What a quiet time saves up is bounded.
    assert sum(credit.spend() for _ in range(1000)) == 10
