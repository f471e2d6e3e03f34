"""How many replicas of an endpoint a fleet of devices needs, from its traffic, its offload curve and a deadline.

Example:
    >>> traffic = Traffic(devices=1000, requests_per_hour=120, peak_factor=3)
    >>> replica = Replica(GammaTime(mean_s=0.012, cv=0.3), workers=2)
    >>> staff(traffic.arrivals_per_s(0.2), replica, Goal(deadline_s=0.1, network_s=0.02)).replicas
    2
"""

from cloud_fallback.capacity.gamma_time import GammaTime
from cloud_fallback.capacity.offload import OffloadPoint
from cloud_fallback.capacity.plan import Plan, PlanPoint, plan
from cloud_fallback.capacity.queue import Queue
from cloud_fallback.capacity.staffing import Goal, Load, Replica, Staffing, staff
from cloud_fallback.capacity.traffic import Traffic

__all__ = [
    "GammaTime",
    "Goal",
    "Load",
    "OffloadPoint",
    "Plan",
    "PlanPoint",
    "Queue",
    "Replica",
    "Staffing",
    "Traffic",
    "plan",
    "staff",
]
