"""When the cloud is asked, and what becomes of answers when it cannot be."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import pytest

from cloud_fallback import Action, Cost, Decision, HourlyBudget, Link, OffloadPolicy, Policy
from cloud_fallback.threshold.online_threshold import OnlineThreshold
from edge_runtime import ErrorCode, HybridgeError, Query, Reason

KEEP = Decision(Action.KEEP, Reason.CONFIDENT)
ASK = Decision(Action.ASK, Reason.UNSURE)


def _query(confidence: float | None = 0.1, **options: Any) -> Query:
    return Query("s", {}, {}, confidence, **{"threshold": 0.5, **options})


def _link(
    obstacle: Reason | None = None,
    expected_s: float | None = None,
    time_left_s: float = 1.0,
    request_bytes: Callable[[], int] = lambda: 1000,
) -> Link:
    return Link(obstacle, expected_s, time_left_s, request_bytes)


@pytest.mark.parametrize(
    ("confidence", "expected"),
    [(0.49, ASK), (0.5, KEEP), (0.51, KEEP), (0.0, ASK), (1.0, KEEP), (None, ASK), (math.nan, ASK)],
)
def test_the_cloud_is_asked_below_the_threshold_and_when_nothing_is_known(
    confidence: float | None, expected: Decision
) -> None:
    assert OffloadPolicy().judge(_query(confidence)) == expected
    assert OffloadPolicy(0.5).judge(_query(confidence, threshold=None)) == expected


def test_a_threshold_of_its_own_comes_before_the_querys() -> None:
    assert OffloadPolicy(0.2).judge(_query(0.3, threshold=0.9)) == KEEP


def test_without_any_threshold_the_device_is_believed() -> None:
    decision = OffloadPolicy().judge(_query(0.0, threshold=None))
    assert decision == Decision(Action.KEEP, Reason.NO_THRESHOLD)


def test_nothing_in_the_way_is_asked() -> None:
    assert OffloadPolicy().admit(_query(), _link(expected_s=0.9)) == ASK


def _never() -> int:
    raise AssertionError("the request was made only to be measured")


@pytest.mark.parametrize(
    ("query", "link", "reason"),
    [
        (_query(private=True), _link(Reason.OFFLINE, request_bytes=_never), Reason.PRIVATE),
        (_query(), _link(Reason.OFFLINE, request_bytes=_never), Reason.OFFLINE),
        (_query(), _link(Reason.CLOUD_BREAKER_OPEN, request_bytes=_never), Reason.CLOUD_BREAKER_OPEN),
        (_query(), _link(expected_s=1.1, request_bytes=_never), Reason.NO_TIME),
        (_query(), _link(time_left_s=0.0, request_bytes=_never), Reason.NO_TIME),
        (_query(0.95), _link(), Reason.TOO_COSTLY),
        (_query(), _link(request_bytes=lambda: 2_000_001), Reason.BYTE_BUDGET),
    ],
)
def test_the_first_thing_in_the_way_is_the_reason(query: Query, link: Link, reason: Reason) -> None:
    policy = OffloadPolicy(budget=HourlyBudget(megabytes=2), cost=Cost(error=1.0, request=0.1))
    assert policy.admit(query, link) == Decision(Action.KEEP, reason)


def test_what_is_in_the_way_spends_nothing() -> None:
    budget = HourlyBudget(requests=1)
    policy = OffloadPolicy(budget=budget)
    assert policy.admit(_query(), _link(Reason.OFFLINE)).reason is Reason.OFFLINE
    assert policy.admit(_query(), _link()) == ASK
    assert policy.admit(_query(), _link()) == Decision(Action.KEEP, Reason.REQUEST_BUDGET)


def test_bytes_cost_too() -> None:
    policy = OffloadPolicy(cost=Cost(error=1.0, megabyte=0.5, cloud_accuracy=0.9))
    # 0.4 more likely right, for 0.5 a megabyte.
    assert policy.admit(_query(0.5), _link(request_bytes=lambda: 700_000)) == ASK
    assert policy.admit(_query(0.5), _link(request_bytes=lambda: 900_000)).reason is Reason.TOO_COSTLY


@pytest.mark.parametrize(
    ("confidence", "private", "expected"),
    [
        (0.4, False, Action.DEFER),
        (0.1, False, Action.DEFER),
        (0.4, True, Action.KEEP),
        (0.1, True, Action.REFUSE),
        (None, True, Action.REFUSE),
    ],
)
def test_deferred_unless_private_and_refused_below_the_floor(
    confidence: float | None, private: bool, expected: Action
) -> None:
    policy = OffloadPolicy(unanswered="defer", refuse_below=0.3)
    decision = policy.admit(_query(confidence, private=private), _link(Reason.OFFLINE))
    assert decision.action is expected


@pytest.mark.parametrize(
    ("confidence", "expected"), [(0.3, Action.KEEP), (0.29, Action.REFUSE), (math.nan, Action.REFUSE)]
)
def test_an_answer_below_the_floor_is_refused_when_asking_was_in_vain(
    confidence: float, expected: Action
) -> None:
    decision = OffloadPolicy(refuse_below=0.3).give_up(_query(confidence), Reason.CLOUD_DEADLINE)
    assert decision == Decision(expected, Reason.CLOUD_DEADLINE)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf])
@pytest.mark.parametrize("name", ["threshold", "refuse_below"])
def test_a_threshold_outside_the_unit_interval_is_refused(name: str, value: float) -> None:
    with pytest.raises(HybridgeError) as caught:
        OffloadPolicy(**cast("dict[str, Any]", {name: value}))
    assert caught.value.code is ErrorCode.CONFIDENCE_INVALID


def test_the_offload_policy_is_a_policy() -> None:
    assert isinstance(OffloadPolicy(), Policy)


def test_a_threshold_that_follows_the_cloud_learns_from_its_answers() -> None:
    online = OnlineThreshold(cost=0.2, start=0.5, explore=0.0, seed=1)
    policy = OffloadPolicy(online=online)
    assert policy.judge(_query(0.6, threshold=0.9)) == KEEP
    for _ in range(200):
        policy.judge(_query(0.4))
        policy.heard(_query(0.4, agrees=lambda _outputs: True), {})
    assert policy.judge(_query(0.4)) == KEEP
    for _ in range(200):
        policy.heard(_query(0.6, agrees=lambda _outputs: False), {})
        policy.judge(_query(0.6))
    assert policy.judge(_query(0.6)) == ASK


def test_an_answer_that_cannot_be_compared_is_nothing_to_learn_from() -> None:
    policy = OffloadPolicy(online=OnlineThreshold(cost=0.2))
    before = policy.online
    policy.heard(_query(), {})
    assert before is not None
    assert before.to_json() == OnlineThreshold(cost=0.2).to_json()
