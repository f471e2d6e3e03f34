from __future__ import annotations

import pytest

from convert import Budget, parse_size
from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.manifest import Accuracy, Parity, Size

SIZE = Size(source=400_000, model=100_000, deflated=80_000)
PARITY = Parity(max_abs_error=0.1, mean_abs_error=0.01, samples=100, data="user", label_agreement=0.97)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("300KB", 300_000), ("98496", 98_496), ("1.5 MB", 1_500_000), ("512KiB", 524_288), ("1kb", 1000)],
)
def test_sizes_are_read_as_people_write_them(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "KB", "12 XB", "-3KB", "1e5"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(HybridgeError) as caught:
        parse_size(text)
    assert caught.value.code is ErrorCode.USAGE


@pytest.mark.parametrize(
    ("budget", "misses"),
    [
        (Budget(), 0),
        (Budget(max_drop=0.01, max_size=100_000, min_agreement=0.97, max_latency_ms=2.0), 0),
        (Budget(max_drop=0.0099), 1),
        (Budget(max_size=99_999, min_agreement=0.98, max_latency_ms=1.9), 3),
    ],
)
def test_a_limit_that_is_met_exactly_is_kept_and_one_beyond_is_missed(budget: Budget, misses: int) -> None:
    accuracy = Accuracy(source=0.91, converted=0.90, samples=100)
    assert len(budget.misses(size=SIZE, accuracy=accuracy, parity=PARITY, latency_ms=2.0)) == misses


def test_what_was_not_measured_keeps_no_limit() -> None:
    parity = Parity(max_abs_error=0.1, mean_abs_error=0.01, samples=100, data="user")
    budget = Budget(max_drop=0.5, min_agreement=0.5, max_latency_ms=5.0)
    found = budget.misses(size=SIZE, accuracy=None, parity=parity, latency_ms=None)
    assert len(found) == 3
    assert all("unknown" in each for each in found)
