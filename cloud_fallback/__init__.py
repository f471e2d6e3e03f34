"""When to ask the cloud, how to ask it, and the endpoint that answers.

A chain is given a `CloudFallback`. Its `OffloadPolicy` decides for each prediction, `sweep` and `choose` find the
threshold for that on validation data, and an `Endpoint` answers, or KServe, Triton, OpenVINO Model Server or MLServer.

Example:
    >>> fallback = CloudFallback("cloud.example:8001", model="digits-large", deadline_s=0.1)
    >>> chain = Chain.from_bundle("digits-1.0.edge", fallback=fallback)
"""

from typing import TYPE_CHECKING, Any

from cloud_fallback.policy import Action, Cost, Decision, HourlyBudget, Link, OffloadPolicy, Policy
from cloud_fallback.threshold.curve import choose, sweep, thin

if TYPE_CHECKING:
    from cloud_fallback.client.client import CloudFallback
    from cloud_fallback.endpoint.endpoint import Endpoint
    from cloud_fallback.endpoint.endpoint_process import EndpointProcess
    from cloud_fallback.endpoint.repository import Repository

__all__ = [
    "Action",
    "CloudFallback",
    "Cost",
    "Decision",
    "Endpoint",
    "EndpointProcess",
    "HourlyBudget",
    "Link",
    "OffloadPolicy",
    "Policy",
    "Repository",
    "choose",
    "sweep",
    "thin",
]

# What needs gRPC is loaded when it is asked for; the serving half needs libraries that devices do not have.
_LOADED_ON_DEMAND = {
    "CloudFallback": "cloud_fallback.client.client",
    "Endpoint": "cloud_fallback.endpoint.endpoint",
    "EndpointProcess": "cloud_fallback.endpoint.endpoint_process",
    "Repository": "cloud_fallback.endpoint.repository",
}


def __getattr__(name: str) -> Any:
    if name not in _LOADED_ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LOADED_ON_DEMAND[name]), name)
