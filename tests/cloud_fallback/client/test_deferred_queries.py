"""Deferred queries wait in little memory, and each teaches once."""

from __future__ import annotations

import numpy as np
import pytest

from cloud_fallback.client.deferred_queries import DeferredQueries
from edge_runtime import Query


def _query(elements: int) -> Query:
    return Query("s", {"x": np.zeros(10_000_000, np.uint8)}, {"y": np.zeros(elements, np.uint8)}, 0.4)


def test_a_query_is_taken_once_and_without_its_inputs() -> None:
    queries = DeferredQueries()
    queries.put("a", _query(10))
    taken = queries.take("a")
    assert taken is not None
    assert (taken.confidence, taken.inputs, taken.outputs["y"].size) == (0.4, {}, 10)
    assert queries.take("a") is None
    assert queries.take("another") is None


@pytest.mark.parametrize(("elements", "kept"), [(10, 1014), (250_000, 4), (10_000_000, 0)])
def test_the_newest_are_kept_in_a_megabyte(elements: int, kept: int) -> None:
    queries = DeferredQueries()
    count = kept + 2
    for number in range(count):
        queries.put(str(number), _query(elements))
    assert [number for number in range(count) if queries.take(str(number))] == list(range(2, count))
    # Those that were taken leave their room.
    queries.put("new", _query(10))
    assert queries.take("new") is not None
