"""A fallback's figures for Prometheus, by its own client library (extra `metrics`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloud_fallback.client.client import CloudFallback

__all__ = ["FallbackCollector"]


class FallbackCollector:
    """Reads the figures of fallbacks anew at each scrape, for a page of a program's own.

    Args:
        fallbacks: By the name of the stage that asks.

    Example:
        >>> prometheus_client.REGISTRY.register(FallbackCollector({"read": fallback}))
    """

    def __init__(self, fallbacks: Mapping[str, CloudFallback]):
        self._fallbacks = fallbacks

    def collect(self) -> list[Any]:
        """The metric families."""
        from edge_runtime.prometheus import families

        return families(
            ({"stage": stage}, measure)
            for stage, fallback in self._fallbacks.items()
            for measure in fallback.figures().measures()
        )
