"""When the cloud is asked."""

from __future__ import annotations

import math

import pytest

from cloud_fallback import Decision, Policy, ThresholdPolicy
from edge_runtime import ErrorCode, HybridgeError, Query, Reason

KEEP = Decision(False, Reason.CONFIDENT)
ASK = Decision(True, Reason.UNSURE)


@pytest.mark.parametrize(
    ("confidence", "expected"),
    [(0.49, ASK), (0.5, KEEP), (0.51, KEEP), (0.0, ASK), (1.0, KEEP), (None, ASK), (math.nan, ASK)],
)
def test_the_cloud_is_asked_below_the_threshold_and_when_nothing_is_known(
    confidence: float | None, expected: Decision
) -> None:
    assert ThresholdPolicy().decide(Query("s", {}, {}, confidence, threshold=0.5)) == expected
    assert ThresholdPolicy(0.5).decide(Query("s", {}, {}, confidence, threshold=None)) == expected


def test_a_threshold_of_its_own_comes_before_the_querys() -> None:
    assert ThresholdPolicy(0.2).decide(Query("s", {}, {}, 0.3, threshold=0.9)) == KEEP


def test_without_any_threshold_the_device_is_believed() -> None:
    assert ThresholdPolicy().decide(Query("s", {}, {}, 0.0)) == Decision(False, Reason.NO_THRESHOLD)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan, math.inf])
def test_a_threshold_outside_the_unit_interval_is_refused(threshold: float) -> None:
    with pytest.raises(HybridgeError) as caught:
        ThresholdPolicy(threshold)
    assert caught.value.code is ErrorCode.CONFIDENCE_INVALID


def test_the_threshold_policy_is_a_policy() -> None:
    assert isinstance(ThresholdPolicy(), Policy)
