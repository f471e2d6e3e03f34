"""The rule that says whether the cloud is asked: keep, ask, defer or refuse."""

from cloud_fallback.policy.cost import Cost
from cloud_fallback.policy.hourly_budget import HourlyBudget
from cloud_fallback.policy.offload_policy import OffloadPolicy
from cloud_fallback.policy.policy import Action, Decision, Link, Policy

__all__ = ["Action", "Cost", "Decision", "HourlyBudget", "Link", "OffloadPolicy", "Policy"]
