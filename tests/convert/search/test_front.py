from __future__ import annotations

from dataclasses import replace

from convert.budget import Budget
from convert.search.front import nearest, pareto_front, smallest
from convert.search.goal import Goal, goal_of
from convert.search.trial import Failure, Trial
from edge_runtime import ErrorCode
from tests.convert.search.conftest import trial


def names(trials: tuple[Trial, ...]) -> list[str]:
    return [each.recipe.name for each in trials]


def test_the_front_is_what_no_other_beats_in_all_three() -> None:
    trials = [
        trial("small", 100, 0.02, 1.0),
        trial("exact", 400, 0.0, 1.0),
        trial("fast", 200, 0.01, 0.5),
        trial("worse than fast", 210, 0.012, 0.6),
        trial("worse than exact", 500, 0.0, 1.0),
    ]
    assert names(pareto_front(trials)) == ["small", "fast", "exact"]
    assert names(pareto_front(trials[::-1])) == ["small", "fast", "exact"]


def test_equal_trials_all_stay_on_the_front_in_the_order_they_were_tried() -> None:
    assert names(pareto_front([trial("a", 100, 0.01, 1.0), trial("b", 100, 0.01, 1.0)])) == ["a", "b"]


def test_latencies_that_differ_by_noise_do_not_put_a_trial_on_the_front() -> None:
    trials = [trial("a", 100, 0.0, 1.0), trial("b", 200, 0.0, 0.97)]
    assert names(pareto_front(trials)) == ["a"]
    assert names(pareto_front(trials, latency_noise=0.0)) == ["a", "b"]
    assert names(pareto_front([trials[0], trial("c", 200, 0.0, 0.9)])) == ["a", "c"]


def test_what_was_beaten_by_a_beaten_trial_is_judged_by_the_front_alone() -> None:
    # c is within noise of b and b of a, but c is clearly faster than a.
    trials = [trial("a", 100, 0.0, 1.0), trial("b", 110, 0.0, 0.96), trial("c", 120, 0.0, 0.92)]
    assert names(pareto_front(trials)) == ["a", "c"]


def test_an_unknown_latency_counts_as_the_slowest() -> None:
    trials = [
        trial("known", 100, 0.01, 5.0),
        trial("unknown", 100, 0.01, None),
        trial("smaller", 90, 0.01, None),
    ]
    assert names(pareto_front(trials)) == ["smaller", "known"]
    assert names(pareto_front([trial("x", 100, 0.01, None), trial("y", 110, 0.01, None)])) == ["x"]


def test_without_labels_agreement_is_what_is_lost_and_without_classes_noise() -> None:
    agreed = [trial("a", 100, None, agreement=0.9), trial("b", 200, None, agreement=0.99)]
    assert names(pareto_front([*agreed, trial("c", 300, None, agreement=0.95)])) == ["a", "b"]
    noisy = [
        trial(str(snr), size, None, agreement=None, snr_db=snr) for size, snr in ((100, 10.0), (200, 40.0))
    ]
    identical = trial("identical", 300, None, agreement=None, snr_db=None)
    worse = trial("worse", 250, None, agreement=None, snr_db=30.0)
    assert names(pareto_front([*noisy, worse, identical])) == ["10.0", "40.0", "identical"]


def test_trials_without_a_model_are_nowhere() -> None:
    failed = Trial(recipe=trial("f").recipe, key="f", seconds=1.0, failure=Failure(ErrorCode.INTERNAL, "no"))
    goal = Goal(Budget())
    assert pareto_front([failed]) == ()
    assert smallest([failed]) is None
    assert nearest([failed], goal) is None


def test_of_files_of_one_size_the_smaller_over_the_air_wins_then_the_faster() -> None:
    big = trial("big", 1000, 0.0, 0.1, deflated=10)
    a = trial("a", 500, 0.0, 1.0, deflated=400)
    b = trial("b", 504, 0.0, 2.0, deflated=200)
    c = trial("c", 503, 0.0, 1.5, deflated=201)
    for trials, wins in (([big, a], "a"), ([a, b], "b"), ([a, b, c], "c"), ([c, b, a], "c")):
        found = smallest(trials)
        assert found is not None
        assert found.recipe.name == wins
    outside = smallest([replace(a, misses=("drop",)), big])
    assert outside is not None
    assert outside.recipe.name == "big"


def test_the_nearest_is_judged_by_its_worst_limit() -> None:
    goal = Goal(Budget(max_drop=0.01, max_size=100, max_latency_ms=1.0))
    small = trial("small", 100, 0.05, 1.0)  # four points too much
    large = trial("large", 220, 0.0, 1.0)  # 1.2 times too much
    slow = trial("slow", 100, 0.0, 2.5)
    found = nearest([small, large, slow], goal)
    assert found is not None
    assert found.recipe.name == "large"
    unknown = nearest([trial("unknown", 100, 0.0, None), small], goal)
    assert unknown is not None
    assert unknown.recipe.name == "small"


def test_a_search_without_a_limit_on_quality_assumes_one_and_says_so() -> None:
    labelled = goal_of(Budget(max_size=100), labelled=True, classes=True)
    assert labelled.budget.max_drop == 0.01
    assert "0.01" in labelled.assumed
    unlabelled = goal_of(Budget(), labelled=False, classes=True)
    assert unlabelled.budget.min_agreement == 0.98
    values = goal_of(Budget(), labelled=False, classes=False)
    assert values.min_snr_db == 20
    assert "20 dB" in values.assumed
    given = goal_of(Budget(min_agreement=0.9), labelled=True, classes=True)
    assert given.assumed == ""
    assert given.budget.max_drop is None


def test_misses_name_what_is_out_of_bounds() -> None:
    goal = goal_of(Budget(), labelled=False, classes=False)
    assert goal.misses(trial("x", 100, None, agreement=None, snr_db=12.0)) == (
        "signal-to-noise ratio 12.0 dB (at least 20)",
    )
    assert goal.misses(trial("x", 100, None, agreement=None, snr_db=None)) == ()
    limited = Goal(Budget(max_drop=0.01, max_size=50))
    assert limited.misses(trial("x", 100, 0.02)) == (
        "drop 0.02 (at most 0.01)",
        "size 100 bytes (at most 50)",
    )
    assert limited.quality.misses(trial("x", 100, 0.02)) == ("drop 0.02 (at most 0.01)",)
    assert limited.keeps_quality(trial("x", 100, 0.01))
