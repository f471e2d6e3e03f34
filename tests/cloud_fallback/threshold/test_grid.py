"""Every combination of thresholds is counted as a chain would answer, and the path through them is a sound one."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from cloud_fallback.threshold.examples import Examples
from cloud_fallback.threshold.grid import Grid
from cloud_fallback.threshold.path import learn_path
from cloud_fallback.threshold.tradeoff import measure_tradeoff
from tests.cloud_fallback.threshold.populations import declining, two_tiers, usual

Array = np.ndarray[Any, Any]


def _coarse(tiers: int, seed: int) -> Examples:
    """Few confidences, so that many are equal; some are NaN, some 1."""
    rng = np.random.default_rng(seed)
    confidence = rng.integers(0, 7, (tiers, 70)) / 6
    confidence[:, :4] = math.nan
    return Examples.check(list(confidence), list(rng.random((tiers, 70)) < 0.6), rng.random(70) < 0.8)


def _walked(examples: Examples, thresholds: list[float]) -> tuple[int, int, int]:
    """Right answers, questions to the cloud, and to further tiers, example by example."""
    right = offloaded = asked = 0
    for index in range(len(examples)):
        for tier, threshold in enumerate(thresholds):
            asked += tier > 0
            if examples.confidence[tier, index] >= threshold:
                right += examples.device_correct[tier, index]
                break
        else:
            offloaded += 1
            right += examples.cloud_correct[index]
    return int(right), offloaded, asked


@pytest.mark.parametrize("tiers", [1, 2, 3])
def test_counts_are_those_of_asking_one_tier_after_the_other(tiers: int) -> None:
    examples = _coarse(tiers, seed=tiers)
    grid = Grid.count(examples)
    places = list(itertools.product(*map(range, grid.right.shape)))
    for place in places[:: max(len(places) // 60, 1)]:
        thresholds = [float(scale[each]) for scale, each in zip(grid.thresholds, place, strict=True)]
        counted = (grid.right[place], grid.offloaded[place], grid.asked[place])
        assert counted == _walked(examples, thresholds)
        point = examples.point(thresholds)
        assert (point.accuracy * 70, point.offloaded * 70) == pytest.approx(counted[:2])


def test_a_grid_of_many_examples_stays_small() -> None:
    examples = two_tiers().draw(2000, np.random.default_rng(0))
    spread = np.clip(examples.confidence + np.random.default_rng(1).normal(0, 0.02, (2, 2000)), 0, 1)
    many = Examples(spread, examples.device_correct, examples.cloud_correct)
    assert Grid.count(many).right.size <= 1 << 16
    assert Grid.count(many).right.size > 60_000


def test_the_front_is_what_nothing_cheaper_reaches() -> None:
    grid = Grid.count(_coarse(2, seed=9))
    offloaded, right = grid.offloaded.ravel(), grid.right.ravel()
    front = grid.front(grid.offloaded.astype(np.float64))
    for index in front:
        assert not ((offloaded <= offloaded[index]) & (right > right[index])).any()
        assert not ((offloaded < offloaded[index]) & (right >= right[index])).any()
    assert right[front].max() == right.max()


@pytest.mark.parametrize("population", [usual(), declining(), two_tiers()], ids=["usual", "declining", "two"])
def test_a_path_leads_from_accurate_to_cheap_and_its_ends_are_among_the_best(population: Any) -> None:
    examples = population.draw(5000, np.random.default_rng(0))
    points = [examples.point(thresholds) for thresholds in learn_path(examples, steps=50)]
    best = max(point.accuracy for point in measure_tradeoff(examples).points)
    assert points[0].accuracy >= best - 0.006
    assert points[-1].offloaded == 0
    offloaded = [point.offloaded for point in points]
    # Tiers that are asked less may send a little more to the cloud, never much.
    assert all(later <= earlier + 0.01 for earlier, later in itertools.pairwise(offloaded))


def test_of_combinations_that_offload_alike_a_path_takes_those_whose_first_tier_answers_more() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random((2, 4000))
    # Both tiers are right where they are sure, so that asking the second of what the first is sure of helps nobody.
    right = rng.random(4000) < confidence
    examples = Examples.check(list(confidence), list(right), np.ones(4000, bool))
    first = np.mean([examples.point(thresholds).answered[0] for thresholds in learn_path(examples, steps=50)])
    assert first > 0.1


@pytest.mark.parametrize("tiers", [1, 2])
def test_lines_and_areas_of_a_curve_are_where_they_belong(tiers: int) -> None:
    examples = _coarse(tiers, seed=3)
    curve = measure_tradeoff(examples)
    assert [point.offloaded for point in curve.points] == sorted(point.offloaded for point in curve.points)
    assert curve.random[1] == (1.0, examples.cloud_correct.mean())
    assert curve.oracle[-1][1] == (examples.device_correct.any(0) | examples.cloud_correct).mean()
    assert curve.area <= curve.area_oracle <= 1
    # No combination is above the oracle.
    shares, accuracies = zip(*curve.oracle, strict=True)
    assert all(
        point.accuracy <= np.interp(point.offloaded, shares, accuracies) + 1e-12 for point in curve.points
    )


def test_areas_are_exact_where_they_can_be_worked_out() -> None:
    # A confidence that knows: the device's only errors come first, and the cloud mends them.
    curve = measure_tradeoff(Examples.check([[0.1, 0.6, 0.7, 0.8]], [[False, True, True, True]], [True] * 4))
    assert curve.area_oracle == pytest.approx(1 - 0.25 * 0.25 / 2)
    assert curve.area == pytest.approx(curve.area_oracle)
    assert curve.area_random == pytest.approx(0.875)
    assert curve.captured == pytest.approx(1)


def test_a_curve_of_many_examples_is_short_and_keeps_its_best() -> None:
    examples = usual().draw(3000, np.random.default_rng(0))
    spread = np.clip(examples.confidence + np.random.default_rng(1).normal(0, 0.02, 3000), 0, 1)
    many = Examples(spread, examples.device_correct, examples.cloud_correct)
    curve, grid = measure_tradeoff(many), Grid.count(many)
    assert 100 < len(curve.points) <= 200
    assert max(point.accuracy for point in curve.points) == grid.right.max() / 3000
