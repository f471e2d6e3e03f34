from __future__ import annotations

import math

import pytest

from cloud_fallback.outbox.pacing import Backoff, Pace


def test_requests_are_spaced_by_number_and_by_bytes_whichever_is_slower() -> None:
    pace = Pace(requests_per_s=10, bytes_per_s=1000)
    assert pace.wait_s(5.0) == 0
    pace.spend(5.0, 50)
    assert pace.wait_s(5.0) == pytest.approx(0.1)
    pace.spend(5.1, 500)
    assert pace.wait_s(5.1) == pytest.approx(0.5)
    # What was not used while nothing was there is not sent at once later.
    pace.spend(100.0, 0)
    assert pace.wait_s(100.0) == pytest.approx(0.1)


def test_no_limit_is_no_wait() -> None:
    pace = Pace(math.inf, math.inf)
    pace.spend(1.0, 10**9)
    assert pace.wait_s(1.0) == 0


def test_waits_are_random_below_a_bound_that_doubles_up_to_the_longest() -> None:
    for failures, bound_s in ((1, 1.0), (2, 2.0), (4, 8.0), (9, 60.0), (2000, 60.0)):
        waits = []
        for _ in range(300 if failures < 10 else 3):
            backoff = Backoff(1.0, 60.0)
            for _ in range(failures):
                wait_s = backoff.failed("d", 7.0)
            waits.append(wait_s)
        assert all(0 <= wait_s <= bound_s for wait_s in waits)
        if len(waits) > 3:
            assert max(waits) > 0.9 * bound_s
            assert min(waits) < 0.1 * bound_s


def test_of_those_that_were_under_way_together_one_failure_counts() -> None:
    backoff = Backoff(1e-9, 1e6)
    for _ in range(50):
        backoff.failed("d", 10.0, began_s=9.0)
    assert backoff.next_s(10.0) <= 1e-8 or math.isinf(backoff.next_s(10.0))


def test_what_a_server_asks_for_is_heeded_up_to_the_longest_wait() -> None:
    for asked_s, held_s in ((20.0, 20.0), (math.inf, 60.0)):
        backoff = Backoff(1.0, 60.0)
        assert backoff.failed("d", 0.0, at_least_s=asked_s) == held_s
        # One that failed at the same time and was told nothing does not shorten it.
        assert backoff.failed("d", 1.0, began_s=-1.0) == held_s - 1
        assert backoff.rests("d", held_s - 0.1)


def test_a_success_forgets_the_failures() -> None:
    backoff = Backoff(1.0, 60.0)
    while not backoff.rests("d", 0.001):
        backoff.failed("d", 0.0)
    assert backoff.is_in_trouble("d")
    assert backoff.resting(0.001) == {"d"}
    backoff.succeeded("d")
    assert not backoff.is_in_trouble("d")
    assert backoff.resting(0.001) == set()
    assert backoff.next_s(0.001) == math.inf


def test_keys_that_no_longer_rest_do_not_pile_up() -> None:
    backoff = Backoff(0.1, 0.1)
    for number in range(5_000):
        backoff.failed(str(number), float(number))
    assert len(backoff._troubles) <= 1025
