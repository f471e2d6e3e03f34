"""Replicas for a load: enough in a simulation of the fleet, and no more than that takes."""

from __future__ import annotations

import doctest
import heapq

import numpy as np
import pytest

import cloud_fallback.capacity.staffing
from cloud_fallback.capacity import GammaTime, Goal, Queue, Replica, staff
from edge_runtime import ErrorCode, HybridgeError

REPLICA = Replica(GammaTime(0.012, 0.5), workers=2)
GOAL = Goal(0.08, network_s=0.02, late=0.01, max_utilisation=0.95, spare=1)


def _late_in_a_fleet(arrivals_per_s: float, replicas: int, *, count: int = 300_000) -> float:
    """Share late of requests that a balancer sends to any of the replicas."""
    random = np.random.default_rng(7)
    arrivals = np.cumsum(random.exponential(1 / arrivals_per_s, count))
    service = REPLICA.service
    services = random.gamma(service.cv**-2, service.mean_s * service.cv**2, count)
    lines = [[0.0] * REPLICA.workers for _ in range(replicas)]
    late = 0
    for arrival, needed, line in zip(
        arrivals.tolist(), services.tolist(), random.integers(0, replicas, count).tolist(), strict=True
    ):
        done = max(arrival, lines[line][0]) + needed
        heapq.heapreplace(lines[line], done)
        late += done - arrival > GOAL.budget_s
    return late / count


def test_the_replicas_keep_the_promise_in_a_simulation_and_fewer_do_not() -> None:
    staffing = staff(1000.0, REPLICA, GOAL)
    needed = staffing.spare_away.replicas
    assert staffing.replicas == needed + 1
    assert _late_in_a_fleet(1000.0, needed) == pytest.approx(staffing.spare_away.late, rel=0.25)
    assert _late_in_a_fleet(1000.0, needed) <= GOAL.late * 1.1
    assert _late_in_a_fleet(1000.0, needed - 1) > GOAL.late


def test_the_fewest_is_what_counting_up_finds() -> None:
    for arrivals in (1.0, 37.0, 160.0, 1000.0, 4321.0):
        for late in (0.001, 0.01, 0.2):
            goal = Goal(0.05, network_s=0.01, late=late, max_utilisation=0.9, spare=0)
            count = 1
            while (queue := Queue(arrivals / count, REPLICA.service, 2)).late(
                0.04
            ) > late or queue.utilisation > 0.9:
                count += 1
            staffing = staff(arrivals, REPLICA, goal)
            assert (staffing.replicas, staffing.spare_away.replicas) == (count, count)


def test_workers_are_never_busier_than_allowed() -> None:
    # Nearly any deadline will do, so that only the limit on utilisation counts: 96 busy workers of 120.
    goal = Goal(60.0, late=0.5, max_utilisation=0.8, spare=2)
    staffing = staff(8000.0, REPLICA, goal)
    assert staffing.spare_away.replicas == 60
    assert staffing.spare_away.utilisation == pytest.approx(0.8)
    assert staffing.all_up.replicas == staffing.replicas == 62


def test_one_line_for_all_needs_no_more_and_its_spare_capacity_shrinks() -> None:
    goal = Goal(0.04, late=0.01, max_utilisation=0.99, spare=0)
    replica = Replica(GammaTime(0.012, 1.0))
    extra = {}
    with pytest.raises(HybridgeError):
        staff(100.0, replica, goal)  # 3.6% of the times alone are longer than that
    goal = Goal(0.08, late=0.01, max_utilisation=0.99, spare=0)
    for arrivals in (100.0, 1000.0, 10_000.0):
        staffing = staff(arrivals, replica, goal)
        assert staffing.one_line <= staffing.replicas
        extra[arrivals] = (staffing.one_line / (arrivals * 0.012), staffing.replicas / (arrivals * 0.012))
    # Separate lines need as much more at any size; one line, ever less.
    assert extra[10_000.0][0] < extra[1000.0][0] < extra[100.0][0]
    assert extra[10_000.0][1] == pytest.approx(extra[1000.0][1], rel=0.05)


def test_the_examples_are_true() -> None:
    for module in (cloud_fallback.capacity, cloud_fallback.capacity.staffing, cloud_fallback.capacity.queue):
        found = doctest.testmod(module, extraglobs=vars(cloud_fallback.capacity))
        assert (found.failed, found.attempted > 0) == (0, True)


@pytest.mark.parametrize("arrivals", [-1.0, float("nan"), float("inf")])
def test_arrivals_that_are_none_are_refused(arrivals: float) -> None:
    with pytest.raises(HybridgeError, match="arrivals"):
        staff(arrivals, REPLICA, GOAL)


def test_no_load_needs_nothing() -> None:
    staffing = staff(0.0, REPLICA, GOAL)
    assert (staffing.replicas, staffing.one_line, staffing.all_up.replicas) == (0, 0, 0)


def test_what_no_number_of_replicas_reaches_is_said() -> None:
    with pytest.raises(HybridgeError, match=r"no number of replicas helps") as caught:
        staff(1.0, Replica(GammaTime(0.2, 0.1)), Goal(0.1))
    assert caught.value.code is ErrorCode.BUDGET_MISSED
    assert "100% late" in caught.value.received


@pytest.mark.parametrize(
    "arguments",
    [
        {"deadline_s": 0.0},
        {"deadline_s": float("nan")},
        {"deadline_s": 0.1, "network_s": 0.1},
        {"deadline_s": 0.1, "network_s": -0.1},
        {"deadline_s": 0.1, "late": 0.0},
        {"deadline_s": 0.1, "late": 1.0},
        {"deadline_s": 0.1, "max_utilisation": 1.0},
        {"deadline_s": 0.1, "spare": -1},
    ],
)
def test_goals_that_are_none_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(HybridgeError) as caught:
        Goal(**arguments)  # type: ignore[arg-type]
    assert caught.value.code is ErrorCode.USAGE


def test_a_replica_has_a_worker() -> None:
    with pytest.raises(HybridgeError, match="workers of a replica"):
        Replica(GammaTime(0.01), 0)
