"""A fallback's figures for Prometheus, by its own client library (extra `metrics`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloud_fallback.client.client import CloudFallback

__all__ = ["FallbackCollector"]

_COUNTERS = {
    "asked": "Questions sent to the cloud.",
    "answered": "Questions that the cloud answered.",
    "cache_hits": "Answers from the cache.",
    "cache_misses": "Queries that the cache had no answer to.",
    "table_hits": "Answers from the table of precomputed ones.",
    "hedges": "Second attempts.",
    "hedges_won": "Second attempts whose answer came first.",
    "deferred": "Questions put into the outbox.",
    "outbox_failures": "Questions that the outbox did not take.",
    "bytes_sent": "Size of the questions.",
    "bytes_received": "Size of the answers.",
    "bytes_saved": "What the questions took more before they were shrunk.",
    "probes": "Calls that only looked whether the endpoint is there.",
    "breaker_openings": "How often the endpoint was left alone.",
}


class FallbackCollector:
    """Reads the figures of fallbacks anew at each scrape.

    Args:
        fallbacks: By the name of the stage that asks.

    Example:
        >>> prometheus_client.REGISTRY.register(FallbackCollector({"read": fallback}))
    """

    def __init__(self, fallbacks: Mapping[str, CloudFallback]):
        self._fallbacks = fallbacks

    def collect(self) -> Iterator[Any]:
        """The metric families."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        figures = {stage: fallback.figures() for stage, fallback in self._fallbacks.items()}

        def family(
            kind: Any, name: str, text: str, labels: Iterable[str], rows: Iterable[tuple[list[str], float]]
        ) -> Any:
            made = kind(f"hybridge_fallback_{name}", text, labels=("stage", *labels))
            for values, value in rows:
                made.add_metric(values, value)
            return made

        yield family(
            CounterMetricFamily,
            "decisions",
            "Queries by what was done about them and why.",
            ("action", "reason"),
            (([s, str(a), str(r)], n) for s, f in figures.items() for (a, r), n in f.decisions.items()),
        )
        yield family(
            CounterMetricFamily,
            "failures",
            "Questions that were not answered, by error code.",
            ("code",),
            (([s, str(code)], n) for s, f in figures.items() for code, n in f.failures.items()),
        )
        for name, text in _COUNTERS.items():
            rows = (([s], getattr(f, name)) for s, f in figures.items())
            yield family(CounterMetricFamily, name, text, (), rows)
        yield family(
            GaugeMetricFamily,
            "breaker_state",
            "1 for the state that the breaker is in.",
            ("state",),
            (([s, str(f.breaker)], 1.0) for s, f in figures.items()),
        )
        offline = (([s], float(f.is_offline)) for s, f in figures.items())
        yield family(GaugeMetricFamily, "offline", "Whether the endpoint cannot be reached.", (), offline)
        expected = (([s], f.expected_ms / 1e3) for s, f in figures.items() if f.expected_ms is not None)
        yield family(GaugeMetricFamily, "expected_seconds", "How long a quick answer takes.", (), expected)
