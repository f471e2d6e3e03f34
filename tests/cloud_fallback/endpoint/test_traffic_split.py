"""Which version a request gets."""

from __future__ import annotations

from collections import Counter

import pytest

from cloud_fallback.endpoint.traffic_split import TrafficSplit
from edge_runtime import ErrorCode, HybridgeError


def _chosen(weights: dict[str, float], keys: int = 20_000) -> dict[str, str]:
    split = TrafficSplit("m", weights, ["2", "1"])
    return {f"device-{n}": split.choose(f"device-{n}") for n in range(keys)}


@pytest.mark.parametrize("share", [5, 20, 50, 95])
def test_each_version_gets_its_share_of_the_keys(share: int) -> None:
    counts = Counter(_chosen({"1": 100 - share, "2": share}).values())
    assert counts["2"] / 20_000 == pytest.approx(share / 100, abs=0.01)


def test_requests_without_a_key_are_shared_too() -> None:
    split = TrafficSplit("m", {"1": 3, "2": 1}, ["2", "1"])
    assert Counter(split.choose() for _ in range(20_000))["2"] / 20_000 == pytest.approx(0.25, abs=0.02)


def test_a_key_stays_with_its_version_and_keeps_it_as_the_share_grows() -> None:
    before, after = _chosen({"1": 95, "2": 5}), _chosen({"1": 80, "2": 20})
    assert before == _chosen({"1": 95, "2": 5})
    assert all(after[key] == "2" for key, version in before.items() if version == "2")


def test_models_have_keys_of_their_own() -> None:
    own = TrafficSplit("m", {"1": 1, "2": 1}, ["2", "1"])
    other = TrafficSplit("n", {"1": 1, "2": 1}, ["2", "1"])
    keys = [str(n) for n in range(1000)]
    assert 300 < sum(own.choose(key) == other.choose(key) for key in keys) < 700


def test_a_version_of_no_weight_gets_nothing() -> None:
    assert set(_chosen({"1": 1, "2": 0}).values()) == {"1"}


@pytest.mark.parametrize("weights", [{"3": 1.0}, {"1": 0.0, "2": 0.0}])
def test_weights_that_choose_nothing_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(HybridgeError) as caught:
        TrafficSplit("m", weights, ["2", "1"])
    assert caught.value.code is ErrorCode.USAGE
