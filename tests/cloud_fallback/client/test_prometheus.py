"""Figures of fallbacks as Prometheus scrapes them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest

from cloud_fallback import CloudFallback
from cloud_fallback.client.answer_cache import AnswerCache
from cloud_fallback.client.figures import FallbackFigures
from cloud_fallback.client.prometheus import FallbackCollector
from edge_runtime import Query
from tests.cloud_fallback.client.peer import Peer, question


def test_every_figure_is_scraped(ask: Callable[..., CloudFallback]) -> None:
    read, sort = ask(Peer(), cache=AnswerCache()), ask("127.0.0.1:1")
    for _ in range(10):
        read.resolve(question(1, 2))
    for number in range(10):
        read.resolve(question(number, number))
    read.resolve(Query("s", {}, {"y": np.zeros(2)}, 0.9, 0.5))
    sort.resolve(question())
    registry = CollectorRegistry()
    registry.register(FallbackCollector({"read": read, "sort": sort}))
    text = generate_latest(registry).decode()
    for line in (
        'hybridge_fallback_decisions_total{action="ask",reason="unsure",stage="read"} 20.0',
        'hybridge_fallback_decisions_total{action="keep",reason="confident",stage="read"} 1.0',
        'hybridge_fallback_decisions_total{action="keep",reason="cloud-unavailable",stage="sort"} 1.0',
        'hybridge_fallback_failures_total{code="cloud-unavailable",stage="sort"} 1.0',
        'hybridge_fallback_cache_hits_total{stage="read"} 9.0',
        'hybridge_fallback_asked_total{stage="read"} 11.0',
        'hybridge_fallback_breaker_state{stage="sort",state="closed"} 1.0',
        'hybridge_fallback_offline{stage="sort"} 1.0',
        'hybridge_fallback_expected_seconds{stage="read"}',
    ):
        assert line in text
    assert 'expected_seconds{stage="sort"}' not in text
    for name in FallbackFigures.__slots__:
        assert (
            name.removesuffix("_ms").removeprefix("is_").replace("breaker_openings", "breaker_openings")
            in text
        )
