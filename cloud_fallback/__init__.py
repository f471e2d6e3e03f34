"""When to ask the cloud, how to ask it, and the endpoint that answers.

A chain is given a `CloudFallback`. Its `OffloadPolicy` decides for each prediction, `sweep` and `choose` find the
threshold for that on validation data, and an `Endpoint` answers, or KServe, Triton, OpenVINO Model Server or MLServer.

Example:
    >>> fallback = CloudFallback("cloud.example:8001", model="digits-large", deadline_s=0.1)
    >>> chain = Chain.from_bundle("digits-1.0.edge", fallback=fallback)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloud_fallback.client.answer_cache import AnswerCache
    from cloud_fallback.client.answer_table import AnswerTable
    from cloud_fallback.client.breaker import BreakerSettings
    from cloud_fallback.client.client import CloudFallback
    from cloud_fallback.client.deferral import LateAnswer, drain_deferred
    from cloud_fallback.client.figures import FallbackFigures
    from cloud_fallback.client.hedging import Hedge
    from cloud_fallback.client.prometheus import FallbackCollector
    from cloud_fallback.client.tls import Tls
    from cloud_fallback.endpoint.endpoint import Endpoint
    from cloud_fallback.endpoint.endpoint_process import EndpointProcess
    from cloud_fallback.endpoint.repository import Repository
    from cloud_fallback.policy import Action, Cost, Decision, HourlyBudget, Link, OffloadPolicy, Policy
    from cloud_fallback.threshold.curve import choose, sweep, thin

__all__ = [
    "Action",
    "AnswerCache",
    "AnswerTable",
    "BreakerSettings",
    "CloudFallback",
    "Cost",
    "Decision",
    "Endpoint",
    "EndpointProcess",
    "FallbackCollector",
    "FallbackFigures",
    "Hedge",
    "HourlyBudget",
    "LateAnswer",
    "Link",
    "OffloadPolicy",
    "Policy",
    "Repository",
    "Tls",
    "choose",
    "drain_deferred",
    "sweep",
    "thin",
]

# Each is loaded when it is asked for: what keeps an outbox needs no gRPC, and what serves is not on devices.
_LOADED_ON_DEMAND = {
    "Action": "cloud_fallback.policy",
    "Cost": "cloud_fallback.policy",
    "Decision": "cloud_fallback.policy",
    "HourlyBudget": "cloud_fallback.policy",
    "Link": "cloud_fallback.policy",
    "OffloadPolicy": "cloud_fallback.policy",
    "Policy": "cloud_fallback.policy",
    "choose": "cloud_fallback.threshold.curve",
    "sweep": "cloud_fallback.threshold.curve",
    "thin": "cloud_fallback.threshold.curve",
    "AnswerCache": "cloud_fallback.client.answer_cache",
    "AnswerTable": "cloud_fallback.client.answer_table",
    "BreakerSettings": "cloud_fallback.client.breaker",
    "CloudFallback": "cloud_fallback.client.client",
    "Endpoint": "cloud_fallback.endpoint.endpoint",
    "EndpointProcess": "cloud_fallback.endpoint.endpoint_process",
    "FallbackCollector": "cloud_fallback.client.prometheus",
    "FallbackFigures": "cloud_fallback.client.figures",
    "Hedge": "cloud_fallback.client.hedging",
    "LateAnswer": "cloud_fallback.client.deferral",
    "Repository": "cloud_fallback.endpoint.repository",
    "Tls": "cloud_fallback.client.tls",
    "drain_deferred": "cloud_fallback.client.deferral",
}


def __getattr__(name: str) -> Any:
    if name not in _LOADED_ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LOADED_ON_DEMAND[name]), name)
