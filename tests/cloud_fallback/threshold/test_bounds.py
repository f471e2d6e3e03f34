"""The bounds are the exact binomial ones, at every size."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from cloud_fallback.threshold.bounds import lower_bound, needed_successes, needed_trials


@pytest.mark.parametrize("trials", [1, 2, 10, 137, 3000, 20_000])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_the_lower_bound_is_that_of_clopper_and_pearson(trials: int, confidence: float) -> None:
    for successes in {0, 1, trials // 2, int(0.97 * trials), trials - 1, trials}:
        exact = stats.beta.ppf(1 - confidence, successes, trials - successes + 1) if successes else 0.0
        assert lower_bound(successes, trials, confidence) == pytest.approx(exact, abs=1e-10)


@pytest.mark.parametrize("trials", [0, 1, 5, 30, 100, 3750])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.97, 0.999])
def test_as_many_successes_are_needed_as_an_exact_test_asks_for(trials: int, share: float) -> None:
    counts = np.arange(trials + 2)
    for confidence in (0.8, 0.95, 0.99):
        passes = stats.binom.sf(counts - 1, trials, share) <= 1 - confidence
        assert needed_successes(trials, share, confidence) == int(np.argmax(passes))


@pytest.mark.parametrize("share", [0.3, 0.93])
def test_the_test_and_the_bound_agree(share: float) -> None:
    for trials in (50, 400):
        needed = needed_successes(trials, share, 0.95)
        assert lower_bound(needed, trials, 0.95) >= share > lower_bound(needed - 1, trials, 0.95)


def test_a_share_of_nothing_needs_nothing_and_of_all_is_never_shown() -> None:
    assert needed_successes(50, 0.0, 0.95) == 0
    assert needed_successes(50, 1.0, 0.95) == 51


@pytest.mark.parametrize(("actual", "share"), [(0.95, 0.93), (1.0, 0.9), (0.6, 0.5)])
def test_so_many_trials_show_the_share_nine_times_in_ten(actual: float, share: float) -> None:
    trials = needed_trials(actual, share, 0.95)
    assert trials is not None

    def power(count: int) -> float:
        return float(stats.binom.sf(needed_successes(count, share, 0.95) - 1, count, actual))

    assert power(trials) >= 0.9
    assert power(int(trials * 0.8)) < 0.9


def test_no_number_of_trials_shows_what_is_not_so() -> None:
    assert needed_trials(0.9, 0.9, 0.95) is None
    assert needed_trials(0.9, 0.95, 0.95) is None
