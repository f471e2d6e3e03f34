"""A plan: the replicas for a fleet, and those for every other share offloaded, so that accuracy has a price."""

from __future__ import annotations

import math
from collections.abc import Iterable

from msgspec import Struct

from cloud_fallback.capacity.offload import OffloadPoint
from cloud_fallback.capacity.staffing import Goal, Replica, Staffing, staff
from cloud_fallback.capacity.traffic import Traffic
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["Plan", "PlanPoint", "plan"]


class PlanPoint(Struct, frozen=True):
    """A share offloaded, and the replicas that it takes at the peak.

    `cost_per_million` is what a million predictions of the fleet cost with these replicas up all day, most of which no
    replica sees; None without a price.
    """

    at: OffloadPoint
    staffing: Staffing
    cost_per_million: float | None


class Plan(Struct, frozen=True):
    """What `plan` found.

    Attributes:
        traffic: As given.
        replica: As given.
        goal: As given.
        chosen: The point that was asked for.
        curve: Points by rising share offloaded, that one among them.
        hourly_replicas: What each hour of the traffic's profile takes; empty without one.
        cost_per_million_by_the_hour: As `PlanPoint.cost_per_million`, with these.
    """

    traffic: Traffic
    replica: Replica
    goal: Goal
    chosen: PlanPoint
    curve: tuple[PlanPoint, ...]
    hourly_replicas: tuple[int, ...]
    cost_per_million_by_the_hour: float | None


def plan(
    traffic: Traffic,
    at: OffloadPoint,
    curve: Iterable[OffloadPoint],
    replica: Replica,
    goal: Goal,
    *,
    replica_price: float | None = None,
) -> Plan:
    """Staffs the peak at one share offloaded, and at those of a curve.

    Args:
        traffic: What the fleet predicts.
        at: The share to plan for.
        curve: The others, by rising share.
        replica: What one replica does.
        goal: What is promised.
        replica_price: What a replica costs in an hour, 0 or more, in any currency.

    Raises:
        HybridgeError: `budget-missed` when no number of replicas keeps the goal; `usage` for a price below 0.
    """
    if replica_price is not None and not 0 <= replica_price < math.inf:
        raise HybridgeError(
            ErrorCode.USAGE, "price of a replica", received=f"{replica_price:g}", expected="0 or more an hour"
        )

    def point(each: OffloadPoint) -> PlanPoint:
        staffing = staff(traffic.arrivals_per_s(each.offloaded), replica, goal)
        return PlanPoint(each, staffing, cost(staffing.replicas))

    def cost(replicas: float) -> float | None:
        if replica_price is None:
            return None
        return replicas * replica_price / (traffic.predictions_per_s * 3600) * 1e6

    hourly = tuple(
        staff(traffic.arrivals_per_s(at.offloaded, factor), replica, goal).replicas
        for factor in traffic.hours
    )
    return Plan(
        traffic,
        replica,
        goal,
        point(at),
        tuple(point(each) for each in curve),
        hourly,
        cost(sum(hourly) / len(hourly)) if hourly else None,
    )
