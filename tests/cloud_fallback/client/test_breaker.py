"""The circuit breaker: closed, open for a time that grows, half-open for one question at a time."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cloud_fallback.client.breaker import BreakerSettings, BreakerState, CircuitBreaker

QUICK = BreakerSettings(failures=3, open_s=0.02, max_open_s=0.2)


def _opened(settings: BreakerSettings = QUICK) -> CircuitBreaker:
    breaker = CircuitBreaker(settings)
    for _ in range(settings.failures):
        breaker.failed("no route")
    assert _state(breaker) is BreakerState.OPEN
    return breaker


def _state(breaker: CircuitBreaker) -> BreakerState:
    return breaker.state


def _wait_for_probe(breaker: CircuitBreaker, longest_s: float) -> float:
    start = time.monotonic()
    while not breaker.wants_probe():
        assert time.monotonic() - start < longest_s + 1
        time.sleep(0.001)
    return time.monotonic() - start


def test_failures_in_a_row_open_it_and_others_do_not() -> None:
    breaker = CircuitBreaker(QUICK)
    for _ in range(20):
        breaker.failed("no route")
        breaker.failed("no route")
        breaker.succeeded()
        breaker.succeeded()
        breaker.succeeded()
    assert (breaker.state, breaker.openings, breaker.admits()) == (BreakerState.CLOSED, 0, True)
    for _ in range(3):
        assert breaker.admits()
        breaker.failed("no route")
    assert (breaker.state, breaker.openings, breaker.admits()) == (BreakerState.OPEN, 1, False)
    assert breaker.last_failure == "no route"


def test_a_share_of_failures_in_the_window_opens_it_too() -> None:
    breaker = CircuitBreaker(BreakerSettings(failures=100, failure_rate=0.5, window=10))
    for _ in range(4):
        breaker.failed("late")
        breaker.succeeded()
    # As many failures as successes, but only half of a window of them.
    assert _state(breaker) is BreakerState.CLOSED
    breaker.succeeded()
    breaker.failed("late")
    assert _state(breaker) is BreakerState.OPEN


def test_one_caller_probes_and_one_question_decides() -> None:
    breaker = _opened()
    assert not breaker.wants_probe()
    _wait_for_probe(breaker, QUICK.open_s)
    assert not breaker.wants_probe()
    breaker.probed(alive=True)
    assert _state(breaker) is BreakerState.HALF_OPEN
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: breaker.admits(), range(64))) == 1
    breaker.succeeded()
    assert (breaker.state, breaker.admits()) == (BreakerState.CLOSED, True)


def test_who_does_not_ask_after_all_leaves_the_trial_to_another() -> None:
    breaker = _opened()
    _wait_for_probe(breaker, QUICK.open_s)
    breaker.probed(alive=True)
    assert breaker.admits()
    assert not breaker.admits()
    breaker.withdrew()
    assert breaker.admits()


def test_a_trial_or_probe_in_vain_doubles_the_time_up_to_the_longest_and_a_success_forgets_that() -> None:
    breaker = _opened()
    longest = 0.0
    for round_ in range(6):
        allowed = min(QUICK.open_s * 2**round_, QUICK.max_open_s)
        waited = _wait_for_probe(breaker, allowed)
        assert allowed / 2 - 0.005 < waited < allowed + 0.1
        longest = max(longest, waited)
        if round_ % 2:
            breaker.probed(alive=False)
        else:
            breaker.probed(alive=True)
            assert breaker.admits()
            breaker.failed("late")
        assert (breaker.state, breaker.openings) == (BreakerState.OPEN, 1)
    assert longest > 0.09
    _wait_for_probe(breaker, QUICK.max_open_s)
    breaker.probed(alive=True)
    breaker.succeeded()
    for _ in range(3):
        breaker.failed("late")
    assert _wait_for_probe(breaker, QUICK.open_s) < 0.09


def test_what_was_asked_before_it_opened_changes_nothing_after() -> None:
    breaker = _opened()
    breaker.succeeded()
    breaker.failed("late")
    assert _state(breaker) is BreakerState.OPEN
    assert not breaker.wants_probe()


def test_a_new_connection_is_as_good_as_a_probe() -> None:
    breaker = _opened(BreakerSettings(failures=1, open_s=60))
    breaker.reconnected()
    assert _state(breaker) is BreakerState.HALF_OPEN
    assert breaker.admits()
    breaker.succeeded()
    breaker.reconnected()
    assert _state(breaker) is BreakerState.CLOSED


@pytest.mark.parametrize("probe_lost", [True, False])
def test_a_breaker_that_was_open_for_many_probes_still_ends(probe_lost: bool) -> None:
    breaker = _opened(BreakerSettings(failures=1, open_s=1e-6, max_open_s=1e-5))
    for _ in range(100):
        _wait_for_probe(breaker, 0.1)
        breaker.probed(alive=not probe_lost)
        if not probe_lost:
            assert breaker.admits()
            breaker.failed("late")
    _wait_for_probe(breaker, 0.1)
    breaker.probed(alive=True)
    breaker.succeeded()
    assert _state(breaker) is BreakerState.CLOSED
