"""A fit keeps its promise as often as it says, whatever the models, and says what it cannot promise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from cloud_fallback import choose, sweep
from cloud_fallback.threshold.examples import Examples
from cloud_fallback.threshold.fit import Fit, fit, learning_part
from edge_runtime import ErrorCode, HybridgeError
from tests.cloud_fallback.threshold.populations import Population, coarse, declining, two_tiers, usual

# Of so many draws, a procedure that breaks its promise in one of twenty breaks it more often than this
# in one of a thousand runs of the test.
DRAWS = 200
MOST_BROKEN = int(stats.binom.ppf(0.999, DRAWS, 0.05))


def _fit(examples: Examples, **goal: Any) -> Fit:
    return fit(list(examples.confidence), list(examples.device_correct), examples.cloud_correct, **goal)


def _broken(
    population: Population,
    choice: Callable[[Examples], tuple[float, ...] | None],
    *,
    target: float,
    size: int,
) -> int:
    """In how many draws the chosen thresholds are less accurate than was asked for."""
    rng = np.random.default_rng(11)
    broken = 0
    for _ in range(DRAWS):
        thresholds = choice(population.draw(size, rng))
        broken += thresholds is not None and population.truth(thresholds)[0] < target
    return broken


@pytest.mark.parametrize(
    ("population", "target", "size"),
    [
        (usual(), 0.81, 800),
        (declining(), 0.85, 800),
        (two_tiers(), 0.87, 800),
        (coarse(), 0.857, 800),
        (coarse(), 0.7, 20),
    ],
    ids=["usual", "declining", "two tiers", "ties", "ties of few"],
)
def test_the_true_accuracy_is_below_the_target_no_more_often_than_promised(
    population: Population, target: float, size: int
) -> None:
    promised = 0

    def chosen(examples: Examples) -> tuple[float, ...] | None:
        nonlocal promised
        fitted = _fit(examples, target_accuracy=target)
        promised += fitted.promised
        return fitted.point.thresholds if fitted.promised else None

    assert _broken(population, chosen, target=target, size=size) <= MOST_BROKEN
    # It is no promise to promise nothing.
    assert promised > DRAWS / 2


def test_choosing_on_the_curve_itself_would_break_the_promise() -> None:
    def chosen(examples: Examples) -> tuple[float, ...] | None:
        curve = sweep(examples.confidence[0], examples.device_correct[0], examples.cloud_correct)
        reached = max(point.accuracy for point in curve) >= 0.81
        return (choose(curve, target_accuracy=0.81).threshold,) if reached else None

    assert _broken(usual(), chosen, target=0.81, size=800) > 2 * MOST_BROKEN


def test_the_share_offloaded_is_above_the_limit_no_more_often_than_promised() -> None:
    population, rng = two_tiers(), np.random.default_rng(5)
    broken, shares = 0, []
    for _ in range(DRAWS):
        fitted = _fit(population.draw(400, rng), max_offload=0.2)
        share = population.truth(fitted.point.thresholds)[1]
        assert fitted.promised
        broken += share > 0.2
        shares.append(share)
    assert broken <= MOST_BROKEN
    assert np.mean(shares) > 0.1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "goal", [{"target_accuracy": 0.85}, {"max_offload": 0.3}], ids=["accuracy", "offload"]
)
def test_what_is_promised_passes_its_test_and_is_what_its_point_says(
    seed: int, goal: dict[str, float]
) -> None:
    examples = two_tiers().draw(1500, np.random.default_rng(seed))
    fitted = _fit(examples, **goal)
    testing = examples.take(np.delete(np.arange(len(examples)), learning_part(len(examples))))
    assert fitted.promised
    assert fitted.tested == len(testing)
    assert fitted.point == examples.point(fitted.point.thresholds)
    assert sum(fitted.point.answered) + fitted.point.offloaded == pytest.approx(1)
    tested = testing.point(fitted.point.thresholds)
    if "target_accuracy" in goal:
        assert goal["target_accuracy"] <= fitted.bound < tested.accuracy
    else:
        assert tested.offloaded < fitted.bound <= goal["max_offload"]


def test_the_order_of_the_examples_does_not_matter_much_and_the_same_ones_give_the_same_fit() -> None:
    examples = usual().draw(4000, np.random.default_rng(0))
    fitted = _fit(examples, target_accuracy=0.81)
    assert fitted == _fit(examples, target_accuracy=0.81)
    # As files have them that are sorted by class: the part that is learned from is no longer like the other.
    ordered = examples.take(np.argsort(examples.confidence[0], kind="stable"))
    assert _fit(ordered, target_accuracy=0.81).point.offloaded == pytest.approx(
        fitted.point.offloaded, abs=0.1
    )


def test_more_examples_need_less_margin() -> None:
    shares = [
        np.mean(
            [
                _fit(usual().draw(size, np.random.default_rng(seed)), target_accuracy=0.81).point.offloaded
                for seed in range(5)
            ]
        )
        for size in (1000, 10_000)
    ]
    assert shares[1] < shares[0]


def test_both_together_may_be_promised_to_be_better_than_the_cloud_is() -> None:
    examples = declining().draw(20_000, np.random.default_rng(1))
    assert examples.cloud_correct.mean() < 0.875
    fitted = _fit(examples, target_accuracy=0.88)
    assert fitted.promised
    assert declining().truth(fitted.point.thresholds)[0] >= 0.88


def test_a_device_that_is_good_enough_alone_asks_nobody() -> None:
    examples = usual().draw(2000, np.random.default_rng(2))
    fitted = _fit(examples, target_accuracy=0.5)
    assert fitted.promised
    assert fitted.point.offloaded == 0


def test_too_few_examples_say_how_many_would_do_and_what_can_be_promised() -> None:
    few = two_tiers().draw(120, np.random.default_rng(3))
    fitted = _fit(few, target_accuracy=0.89)
    assert not fitted.promised
    assert fitted.bound < 0.89
    assert fitted.needed is not None
    assert fitted.needed > fitted.samples
    with pytest.raises(HybridgeError) as caught:
        fitted.require()
    assert caught.value.code is ErrorCode.CONFIDENCE_INVALID
    assert f"{fitted.bound:.2%}" in caught.value.message
    assert f"{fitted.needed:,} examples" in caught.value.message
    # What can be promised is promised with the confidence that was asked for.
    assert _fit(few, target_accuracy=fitted.bound - 1e-6).promised


def test_what_the_models_do_not_reach_no_number_of_examples_would_show() -> None:
    fitted = _fit(usual().draw(3000, np.random.default_rng(4)), target_accuracy=0.97)
    assert not fitted.promised
    assert fitted.needed is None
    with pytest.raises(HybridgeError, match="better models"):
        fitted.require()


def test_a_limit_on_what_is_offloaded_also_needs_examples() -> None:
    fitted = _fit(usual().draw(10, np.random.default_rng(4)), max_offload=0.05)
    assert not fitted.promised
    # Nothing offloaded in so many tests says that it is at most this: Clopper and Pearson at zero.
    assert fitted.bound == pytest.approx(1 - 0.05 ** (1 / fitted.tested))
    assert fitted.needed == pytest.approx(math.log(0.05) / math.log(0.95) / 0.75, abs=4)


def test_everything_may_be_offloaded_where_no_limit_is_set() -> None:
    examples = usual().draw(500, np.random.default_rng(6))
    fitted = _fit(examples, max_offload=1.0)
    assert fitted.promised
    assert fitted.point.accuracy >= examples.cloud_correct.mean() - 0.02


def test_what_is_not_sure_of_anything_is_offloaded() -> None:
    examples = usual().draw(1000, np.random.default_rng(7))
    confidence = examples.confidence.copy()
    confidence[0, ::10] = math.nan
    fitted = fit(list(confidence), list(examples.device_correct), examples.cloud_correct, target_accuracy=0.5)
    assert fitted.point.offloaded == pytest.approx(0.1)


@pytest.mark.parametrize(
    "goal",
    [
        {},
        {"target_accuracy": 0.9, "max_offload": 0.1},
        {"target_accuracy": 1.0},
        {"target_accuracy": math.nan},
        {"max_offload": 0.0},
        {"max_offload": 0.1, "confidence_level": 1.0},
    ],
)
def test_a_goal_that_cannot_be_is_refused(goal: dict[str, float]) -> None:
    with pytest.raises(HybridgeError) as caught:
        _fit(usual().draw(50, np.random.default_rng(0)), **goal)
    assert caught.value.code is ErrorCode.USAGE


@pytest.mark.parametrize(
    ("confidence", "device", "cloud"),
    [
        ([], [], [True, True]),
        ([[0.5]], [[True]], [True]),
        ([[0.5, 0.6]], [[True, False], [True, False]], [True, True]),
        ([[0.5, 0.6]], [[True, False]], [True]),
        ([[0.5, 1.6]], [[True, False]], [True, True]),
    ],
    ids=["no tier", "one example", "a tier too many", "lengths", "range"],
)
def test_data_that_no_threshold_can_be_fitted_to_is_refused(confidence: Any, device: Any, cloud: Any) -> None:
    with pytest.raises(HybridgeError) as caught:
        fit(confidence, device, cloud, target_accuracy=0.9)
    assert caught.value.code is ErrorCode.DATA_INVALID
