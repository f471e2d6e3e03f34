"""A request that comes twice is run once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cloud_fallback.endpoint.answered_requests import AnsweredRequests
from cloud_fallback.endpoint.data_plane import Inference
from edge_runtime import ErrorCode, HybridgeError


def _answer(value: float = 1.0, size: int = 1) -> Inference:
    return Inference("m", "1", {"y": np.full(size, value)})


def _forever() -> float | None:
    return None


def test_the_second_gets_the_answer_of_the_first() -> None:
    answered = AnsweredRequests()
    runs = []

    def run() -> Inference:
        runs.append(1)
        return _answer(len(runs))

    first = answered.once("key", run, _forever)
    assert answered.once("key", run, _forever) is first
    assert answered.once("another", run, _forever) is not first
    assert len(runs) == 2


def test_who_comes_while_it_runs_waits_for_it() -> None:
    answered, release, runs = AnsweredRequests(), threading.Event(), []

    def run() -> Inference:
        runs.append(1)
        assert release.wait(10)
        return _answer()

    # Of a call without a deadline gRPC says that this is left.
    lefts = [_forever, lambda: 9.2e18] * 4
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(answered.once, "key", run, left) for left in lefts]
        time.sleep(0.05)
        release.set()
        assert len({id(future.result(10)) for future in futures}) == 1
    assert len(runs) == 1


def test_who_cannot_wait_so_long_is_told() -> None:
    answered, release = AnsweredRequests(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        began = threading.Event()

        def run() -> Inference:
            began.set()
            assert release.wait(10)
            return _answer()

        first = pool.submit(answered.once, "key", run, _forever)
        assert began.wait(10)
        with pytest.raises(HybridgeError) as caught:
            answered.once("key", _answer, lambda: 0.01)
        release.set()
        first.result(10)
    assert caught.value.code is ErrorCode.CLOUD_DEADLINE


def test_a_failure_is_not_kept() -> None:
    answered = AnsweredRequests()

    def fail() -> Inference:
        raise HybridgeError(ErrorCode.CLOUD_OVERLOADED, "too much")

    for _ in range(2):
        with pytest.raises(HybridgeError):
            answered.once("key", fail, _forever)
    assert answered.once("key", _answer, _forever).version == "1"


def test_the_oldest_are_forgotten_beyond_the_limits() -> None:
    answered = AnsweredRequests(max_bytes=3 * 800 + 100)
    for n in range(6):
        answered.once(n, lambda: _answer(size=100), _forever)
    kept = [n for n in range(6) if answered.once(n, lambda: _answer(7.0), _forever).outputs["y"][0] == 1.0]
    assert kept == [3, 4, 5]
    hasty = AnsweredRequests(max_age_s=0.0)
    hasty.once("key", _answer, _forever)
    assert hasty.once("key", lambda: _answer(2.0), _forever).outputs["y"][0] == 2.0
