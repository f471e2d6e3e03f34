"""The curve of accuracy against share offloaded is exact, and thresholds are chosen on it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from cloud_fallback import Action, OffloadPolicy, choose, sweep, thin
from edge_runtime import ErrorCode, HybridgeError, Query
from edge_runtime.manifest import Confidence, CurvePoint


def _validation(seed: int, levels: int | None) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    confidence = rng.random(200) if levels is None else rng.integers(0, levels + 1, 200) / levels
    return confidence, rng.random(200) < confidence, rng.random(200) < 0.9


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [None, 1, 4, 20])
def test_every_point_is_what_the_policy_does_at_its_threshold(seed: int, levels: int | None) -> None:
    confidence, device, cloud = _validation(seed, levels)
    confidence[:3] = math.nan
    curve = sweep(confidence, device, cloud)
    for point in curve:
        policy = OffloadPolicy(point.threshold)
        decisions = [policy.judge(Query("s", {}, {}, value)) for value in confidence.tolist()]
        asks = np.array([decision.action is Action.ASK for decision in decisions])
        assert point.offloaded == asks.mean()
        assert point.accuracy == pytest.approx(np.where(asks, cloud, device).mean(), abs=1e-12)
    thresholds = [point.threshold for point in curve]
    assert thresholds == sorted(set(thresholds))
    # One point for each way that a threshold can split the examples.
    ways = {sum(value < t for value in confidence.tolist()) for t in (*np.unique(confidence), 1.0)}
    assert len(curve) == len(ways)


def test_the_docstring_example_holds() -> None:
    curve = sweep([0.4, 0.9], [False, True], [True, True])
    assert [(point.threshold, point.accuracy, point.offloaded) for point in curve] == [
        (0.0, 0.5, 0.0),
        (0.65, 1.0, 0.5),
        (0.95, 1.0, 1.0),
    ]


def test_examples_of_one_confidence_go_together() -> None:
    curve = sweep([0.5] * 4, [True, False, False, False], [True] * 4)
    assert [(point.offloaded, point.accuracy) for point in curve] == [(0.0, 0.25), (1.0, 1.0)]


def test_full_confidence_is_below_no_threshold() -> None:
    assert [point.offloaded for point in sweep([1.0, 1.0, 0.5], [True] * 3, [True] * 3)] == [
        0.0,
        pytest.approx(1 / 3),
    ]


def test_neighbouring_floats_are_still_told_apart() -> None:
    low = 0.5
    curve = sweep([low, math.nextafter(low, 1)], [False, False], [True, True])
    assert [point.offloaded for point in curve] == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("confidence", "device", "cloud"),
    [([], [], []), ([0.5], [True, True], [True]), ([1.5], [True], [True]), ([-0.1], [True], [True])],
)
def test_data_that_makes_no_curve_is_refused(confidence: Any, device: Any, cloud: Any) -> None:
    with pytest.raises(HybridgeError) as caught:
        sweep(confidence, device, cloud)
    assert caught.value.code is ErrorCode.DATA_INVALID


CURVE = (
    CurvePoint(0.0, 0.80, 0.0),
    CurvePoint(0.3, 0.90, 0.1),
    CurvePoint(0.5, 0.95, 0.2),
    CurvePoint(0.7, 0.95, 0.3),
    CurvePoint(0.9, 0.93, 0.6),
)


@pytest.mark.parametrize(("share", "threshold"), [(0.0, 0.0), (0.15, 0.3), (0.25, 0.5), (1.0, 0.7)])
def test_the_most_accurate_point_within_a_share_is_chosen(share: float, threshold: float) -> None:
    assert choose(CURVE, max_offload=share).threshold == threshold


@pytest.mark.parametrize(("accuracy", "threshold"), [(0.0, 0.0), (0.85, 0.3), (0.95, 0.5)])
def test_the_cheapest_point_that_reaches_an_accuracy_is_chosen(accuracy: float, threshold: float) -> None:
    assert choose(CURVE, target_accuracy=accuracy).threshold == threshold


@pytest.mark.parametrize("limits", [{}, {"max_offload": 0.1, "target_accuracy": 0.9}])
def test_a_choice_needs_one_limit(limits: dict[str, float]) -> None:
    with pytest.raises(HybridgeError) as caught:
        choose(CURVE, **limits)
    assert caught.value.code is ErrorCode.USAGE


@pytest.mark.parametrize("limits", [{"target_accuracy": 0.99}, {"max_offload": -0.1}])
def test_a_limit_that_no_point_meets_is_an_error_that_says_so(limits: dict[str, float]) -> None:
    with pytest.raises(HybridgeError) as caught:
        choose(CURVE, **limits)
    assert caught.value.code is ErrorCode.CONFIDENCE_INVALID


@pytest.mark.parametrize("count", [3, 8, 32])
def test_a_thinned_curve_keeps_its_ends_and_its_best_and_fits_a_manifest(count: int) -> None:
    curve = sweep(*_validation(0, None))
    few = thin(curve, count)
    assert count // 2 <= len(few) <= count
    assert {curve[0], curve[-1], max(curve, key=lambda point: point.accuracy)} <= {*few} <= {*curve}
    assert list(few) == sorted(few, key=lambda point: point.threshold)
    assert Confidence("logits", curve=few).curve == few


def test_a_short_curve_is_kept_whole() -> None:
    assert thin(CURVE, 5) == CURVE
