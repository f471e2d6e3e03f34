"""What goes into a plan: traffic by the hour, a bundle's curve, and what accuracy costs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cloud_fallback.capacity import GammaTime, Goal, OffloadPoint, Replica, Traffic, plan
from cloud_fallback.capacity.offload import bundle_curve, share_curve
from cloud_fallback.capacity.traffic import read_profile
from edge_runtime import Bundle, ErrorCode, HybridgeError
from edge_runtime.manifest import CurvePoint
from tests.cloud_fallback.capacity.conftest import CURVE

REPLICA = Replica(GammaTime(0.012), workers=2)
GOAL = Goal(0.1, network_s=0.02)


def test_arrivals_are_the_share_of_the_fleet_at_its_peak() -> None:
    traffic = Traffic(1000, 120, 3.0, surge=1.5)
    assert traffic.predictions_per_s == pytest.approx(1000 * 120 / 3600)
    assert traffic.arrivals_per_s(0.2) == pytest.approx(1000 * 120 / 3600 * 0.2 * 3 * 1.5)


def test_the_peak_of_a_profile_is_its_busiest_hour() -> None:
    traffic = Traffic.by_the_hour(1000, 120, hours=(100.0, 500.0, 0.0, 200.0))
    assert traffic.peak_factor == 2.5
    assert traffic.hours == (0.5, 2.5, 0.0, 1.0)


def test_a_profile_may_be_in_any_unit() -> None:
    for unit in (5e-324, 1.0, 8e307):
        hours = Traffic.by_the_hour(10, 10, hours=(unit, 0.0, 2 * unit, unit)).hours
        assert hours == (1.0, 0.0, 2.0, 1.0)


@pytest.mark.parametrize(
    ("devices", "requests", "options"),
    [
        (0, 120, {}),
        (10, 0, {}),
        (10, 1e-322, {}),
        (10, float("inf"), {}),
        (10, 1, {"peak_factor": 0.5}),
        (10, 1, {"surge": 0.0}),
    ],
)
def test_traffic_that_is_none_is_refused(devices: int, requests: float, options: dict[str, float]) -> None:
    with pytest.raises(HybridgeError) as caught:
        Traffic(devices, requests, **options)  # type: ignore[arg-type]
    assert caught.value.code is ErrorCode.USAGE


def test_a_profile_is_read_with_and_without_a_heading() -> None:
    assert read_profile(b"hour,load\n0,1\n1,2.5\n\n", "p.csv") == (1, 2.5)
    assert read_profile(b"\xef\xbb\xbf3\r\n4\r\n", "p.csv") == (3, 4)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no load at all"),
        (b"hour,load\n", "no load at all"),
        (b"0,0\n1,0\n", "no load at all"),
        (b"0,1\n1,two\n", "'two' in line 2"),
        (b"0,-1\n", "-1 in line 1"),
        (b"0,nan\n", "nan in line 1"),
        (b"\xff\xfe", "codec"),
    ],
)
def test_a_profile_of_another_kind_is_refused_with_its_line(content: bytes, said: str) -> None:
    with pytest.raises(HybridgeError, match=said) as caught:
        read_profile(content, "p.csv")
    assert caught.value.code is ErrorCode.DATA_INVALID


def test_a_bundle_gives_its_curve_and_the_point_at_its_threshold(fitted: Callable[..., Bundle]) -> None:
    at, curve = bundle_curve(fitted(), None)
    assert at == OffloadPoint(0.2, 0.9, 0.5)
    assert [point.offloaded for point in curve] == [0, 0.2, 0.6, 1]


def test_between_points_of_a_curve_it_is_straight(fitted: Callable[..., Bundle]) -> None:
    at, curve = bundle_curve(fitted(), 0.7)
    assert at.offloaded == pytest.approx(0.4)
    assert at.accuracy == pytest.approx(0.93)
    assert at in curve
    assert [point.offloaded for point in curve] == sorted(point.offloaded for point in curve)


def test_of_tiers_that_were_fitted_together_no_threshold_is_moved_alone(
    fitted: Callable[..., Bundle],
) -> None:
    # Of several tiers the curve is no function of one threshold.
    curve = (CurvePoint(0.5, 0.8, 0.0), CurvePoint(0.4, 0.85, 0.1), CurvePoint(0.6, 0.9, 0.2))
    bundle = fitted(0.6, curve, tiers=("tiny-1.0", "digits-1.0"))
    assert bundle_curve(bundle, None)[0] == bundle_curve(bundle, 0.6)[0] == OffloadPoint(0.2, 0.9, 0.6)
    with pytest.raises(HybridgeError, match="one of 2 tiers") as caught:
        bundle_curve(bundle, 0.55)
    assert caught.value.code is ErrorCode.USAGE


def test_beyond_a_curve_its_end_holds(fitted: Callable[..., Bundle]) -> None:
    assert bundle_curve(fitted(curve=CURVE[:2]), 1.0)[0].offloaded == 0.2
    assert bundle_curve(fitted(curve=CURVE[:1]), 0.4)[0].offloaded == 0.0


def test_a_bundle_that_was_not_fitted_is_refused(fitted: Callable[..., Bundle]) -> None:
    for bundle, said in ((fitted(curve=()), "no curve"), (fitted(threshold=None), "no threshold")):
        with pytest.raises(HybridgeError, match=said) as caught:
            bundle_curve(bundle, None)
        assert caught.value.code is ErrorCode.CONFIDENCE_INVALID
    for threshold in (1.5, float("nan")):
        with pytest.raises(HybridgeError, match="threshold"):
            bundle_curve(fitted(), threshold)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_a_share(share: float) -> None:
    with pytest.raises(HybridgeError, match="share offloaded"):
        share_curve(share)


def test_a_plan_says_what_every_point_of_accuracy_costs(fitted: Callable[..., Bundle]) -> None:
    traffic = Traffic(100_000, 120, 3.0)
    found = plan(traffic, *bundle_curve(fitted(), None), REPLICA, GOAL, replica_price=0.2)
    replicas = [point.staffing.replicas for point in found.curve]
    assert replicas == sorted(replicas)
    assert replicas[0] == 0 < replicas[1]
    assert found.chosen in found.curve
    cost = found.chosen.cost_per_million
    assert cost == pytest.approx(found.chosen.staffing.replicas * 0.2 / (100_000 * 120) * 1e6)
    assert found.hourly_replicas == ()


def test_hours_that_are_quiet_take_fewer_replicas_and_cost_less() -> None:
    traffic = Traffic.by_the_hour(100_000, 120, hours=(1.0, 4.0, 1.0))
    found = plan(traffic, *share_curve(0.2), REPLICA, GOAL, replica_price=0.2)
    assert max(found.hourly_replicas) == found.hourly_replicas[1] == found.chosen.staffing.replicas
    assert found.hourly_replicas[0] == found.hourly_replicas[2] < found.hourly_replicas[1]
    # The fleet's cost a million: the mean of the hours in place of the peak.
    assert found.cost_per_million_by_the_hour == pytest.approx(
        (found.chosen.cost_per_million or 0) * sum(found.hourly_replicas) / 3 / max(found.hourly_replicas)
    )


def test_a_price_below_nothing_is_refused() -> None:
    with pytest.raises(HybridgeError, match="price"):
        plan(Traffic(1, 1), *share_curve(0.2), REPLICA, GOAL, replica_price=-1.0)
