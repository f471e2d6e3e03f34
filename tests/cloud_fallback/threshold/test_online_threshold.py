"""An online threshold costs about what the best fixed one would, also after the examples have changed."""

from __future__ import annotations

import json
import math
import threading
from typing import Any

import numpy as np
import pytest

from cloud_fallback.threshold.online_threshold import OnlineThreshold
from edge_runtime import Confidence, ErrorCode, HybridgeError
from edge_runtime.manifest import CurvePoint

Array = np.ndarray[Any, Any]
Stream = tuple[Array, Array]


def _stream(count: int, seed: int, *, sharpness: float = 1.0, fooled: float = 0.0) -> Stream:
    """Confidences and whether the cloud disagrees: less often where sure, but for those that are sure and wrong."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(4, 1, count)
    disagree = rng.random(count) < (1 - confidence) ** sharpness
    wrong = rng.random(count) < fooled
    confidence = np.where(wrong, 1 - 0.03 * rng.random(count), confidence)
    return confidence, np.where(wrong, rng.random(count) < 0.8, disagree)


def _run(online: OnlineThreshold, stream: Stream) -> Array:
    """What each example costs."""
    costs = np.empty(len(stream[0]))
    for index, (confidence, disagree) in enumerate(zip(*(each.tolist() for each in stream), strict=True)):
        ask, _ = online.decide(confidence)
        costs[index] = online.cost if ask else disagree
        if ask:
            online.learn(confidence, agreed=not disagree)
    return costs


def _fixed(stream: Stream, cost: float) -> tuple[float, float]:
    """The mean cost of the threshold that is best in hindsight, and that threshold."""
    order = np.argsort(stream[0])
    kept = np.concatenate([[0], np.cumsum(stream[1][order][::-1])])[::-1]
    costs = cost * np.arange(len(order) + 1) + kept
    best = int(costs.argmin())
    return costs[best] / len(order), float(np.append(stream[0][order], 1.0)[best])


@pytest.mark.parametrize("cost", [0.1, 0.3])
@pytest.mark.parametrize("start", [None, 0.2, 1.0])
def test_it_costs_about_what_the_best_fixed_threshold_does_wherever_it_starts(
    cost: float, start: float | None
) -> None:
    stream = _stream(20_000, 1, sharpness=2.0)
    costs = _run(OnlineThreshold(cost, start=start, seed=0), stream)
    best, _ = _fixed(stream, cost)
    assert costs[10_000:].mean() <= 1.12 * best
    assert costs.mean() <= 1.25 * best


def test_it_recovers_when_sure_answers_become_wrong_and_again_when_they_are_right() -> None:
    before, fooled, after = _stream(8000, 2), _stream(8000, 3, fooled=0.25), _stream(8000, 4)
    online = OnlineThreshold(0.2, seed=0)
    _, threshold = _fixed(before, 0.2)
    _run(online, before)
    costs = _run(online, fooled)
    left_alone = np.where(fooled[0] < threshold, 0.2, fooled[1]).mean()
    assert left_alone > 1.4 * _fixed(fooled, 0.2)[0]
    assert costs[4000:].mean() <= 1.25 * _fixed(fooled, 0.2)[0]
    assert _run(online, after)[4000:].mean() <= 1.15 * _fixed(after, 0.2)[0]


def test_without_exploration_it_would_not_find_out() -> None:
    online = OnlineThreshold(0.2, seed=0, explore=0.0)
    _run(online, _stream(8000, 2))
    fooled = _stream(8000, 3, fooled=0.25)
    assert _run(online, fooled)[4000:].mean() > 1.4 * _fixed(fooled, 0.2)[0]


@pytest.mark.parametrize(("learns", "most"), [(True, 1.2), (False, math.inf)])
def test_late_answers_keep_a_network_that_is_bad_at_bad_times_from_misleading_it(
    learns: bool, most: float
) -> None:
    rng = np.random.default_rng(1)
    confidence = rng.beta(4, 1, 20_000)
    # Of every hundred examples fifty find no network, and the device is wrong more often.
    is_away = np.arange(20_000) // 50 % 2 == 1
    disagree = rng.random(20_000) < (1 - confidence) ** np.where(is_away, 0.4, 3.0)
    online = OnlineThreshold(0.2, seed=0)
    waiting: list[tuple[float, bool]] = []
    costs = []
    for each, wrong, away in zip(confidence.tolist(), disagree.tolist(), is_away.tolist(), strict=True):
        if not away:
            for late, late_wrong in waiting:
                online.learn(late, agreed=not late_wrong)
            waiting = []
        ask, _ = online.decide(each)
        costs.append(0.2 if ask else wrong)
        if ask and not away:
            online.learn(each, agreed=not wrong)
        elif ask and learns:
            waiting.append((each, wrong))
    best, _ = _fixed((confidence[10_000:], disagree[10_000:]), 0.2)
    costs_now = np.mean(costs[10_000:])
    assert costs_now <= most * best
    assert learns or costs_now > 1.3 * best


def test_it_starts_where_it_is_told_and_by_default_where_a_calibrated_confidence_is_best() -> None:
    assert OnlineThreshold(0.2, start=0.73).threshold == 0.73
    assert OnlineThreshold(0.2).threshold == 0.8
    assert OnlineThreshold(0.2, start=0.0).threshold == 0.0
    always = OnlineThreshold(0.2, start=1.0)
    assert always.threshold == 1.0
    assert always.decide(1.0) == (True, 1.0)


def test_a_bundle_gives_the_start_and_bins_that_divide_its_examples() -> None:
    curve = tuple(CurvePoint(index / 100, 0.9, (index / 100) ** 2) for index in range(100))
    online = OnlineThreshold.from_confidence(Confidence("logits", threshold=0.61, curve=curve), 0.3)
    assert online.threshold == 0.61
    assert OnlineThreshold.from_confidence(Confidence("logits"), 0.3).threshold == 0.7
    # Half of the examples are above this confidence, so that half of the edges are.
    edges = np.array(online._edges)
    assert 6 <= (edges > math.sqrt(0.5)).sum() <= 8


def test_sure_answers_are_asked_about_by_chance_and_unsure_ones_always() -> None:
    online = OnlineThreshold(0.2, start=0.5, explore=0.1, seed=0)
    asked = [online.decide(0.9) for _ in range(2000)]
    assert {probability for _, probability in asked} == {0.1}
    assert 140 < sum(ask for ask, _ in asked) < 260
    for unsure in (0.2, 0.0, math.nan, None):
        assert online.decide(unsure) == (True, 1.0)
        online.learn(unsure, agreed=True)


def test_what_was_saved_goes_on_as_it_would_have() -> None:
    online = OnlineThreshold(0.15, start=0.6, explore=0.05, seed=0)
    _run(online, _stream(3000, 5, sharpness=3.0))
    again = OnlineThreshold.from_json(online.to_json(), seed=1)
    assert again.threshold == online.threshold
    assert (again.cost, again.start, again.explore, again.memory) == (0.15, 0.6, 0.05, online.memory)
    assert OnlineThreshold.from_json(again.to_json()).to_json() == again.to_json()
    online.learn(0.9, agreed=False)
    again.learn(0.9, agreed=False)
    assert again.threshold == online.threshold


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"\xff", b"[1]", OnlineThreshold(0.2).to_json().replace(b'"seen":[0.0', b'"seen":[')],
)
def test_a_state_that_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(HybridgeError) as caught:
        OnlineThreshold.from_json(content)
    assert caught.value.code is ErrorCode.DATA_INVALID


@pytest.mark.parametrize(
    "given",
    [
        {"cost": 1.5},
        {"cost": math.nan},
        {"start": -0.1},
        {"memory": 0.0},
        {"explore": 2.0},
        {"edges": [0.5, 1.2]},
    ],
)
def test_numbers_out_of_range_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(HybridgeError) as caught:
        OnlineThreshold(**({"cost": 0.2} | given))
    assert caught.value.code is ErrorCode.CONFIDENCE_INVALID


def test_counts_stay_finite_over_a_long_life() -> None:
    online = OnlineThreshold(0.2, memory=1.0, seed=0)
    for _ in range(1000):
        online.decide(0.9)
        online.learn(0.9, agreed=True)
    assert b"null" not in online.to_json()
    assert OnlineThreshold.from_json(online.to_json()).threshold == online.threshold


def test_many_threads_lose_no_answer() -> None:
    online = OnlineThreshold(0.2, memory=1e9, seed=0)

    def work() -> None:
        for _ in range(500):
            online.decide(0.5)
            online.learn(0.9, agreed=True)
            online.to_json()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = np.array(json.loads(online.to_json())["seen"])
    assert seen.sum() == pytest.approx(2000, rel=1e-3)
