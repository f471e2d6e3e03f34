"""Threads for calls: few while they keep up, more when they do not, and nothing lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

import pytest

from cloud_fallback.endpoint.rpc.call_threads import CallThreads

T = TypeVar("T")


def _until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.002)


def _submit(pool: CallThreads, call: Callable[..., T], *args: object) -> Future[T]:
    future: Future[T] = Future()

    def run() -> None:
        future.set_result(call(*args))

    pool.start(run)
    return future


def _names(futures: list[Future[str]]) -> set[str]:
    wait(futures, timeout=20)
    return {future.result(0) for future in futures}


def test_short_work_is_done_by_few_threads() -> None:
    pool = CallThreads(64)
    names = [
        _names([_submit(pool, lambda: threading.current_thread().name) for _ in range(32)]) for _ in range(50)
    ]
    # One of them may have been put to sleep by the machine.
    assert sorted(map(len, names))[25] <= 4
    pool.shutdown()


def test_a_thread_that_is_held_does_not_keep_others_waiting() -> None:
    pool, release = CallThreads(16), threading.Event()
    held = [_submit(pool, release.wait, 20) for _ in range(12)]
    start = time.perf_counter()
    assert _submit(pool, lambda: 7).result(10) == 7
    assert time.perf_counter() - start < 2
    release.set()
    assert all(future.result(10) for future in held)
    pool.shutdown()


def test_there_are_never_more_threads_than_may_be() -> None:
    pool, release = CallThreads(6), threading.Event()
    running, most, lock = [0], [0], threading.Lock()

    def hold() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        release.wait(20)
        with lock:
            running[0] -= 1

    futures = [_submit(pool, hold) for _ in range(40)]
    _until(lambda: running[0] == 6)
    time.sleep(0.05)
    assert most[0] == 6
    release.set()
    wait(futures, timeout=20)
    assert most[0] == 6
    assert all(future.done() for future in futures)
    pool.shutdown()


def test_an_error_is_logged_and_the_thread_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    pool = CallThreads(1)

    def fail() -> None:
        raise ValueError("no")

    pool.start(fail)
    assert _submit(pool, lambda: 1).result(10) == 1
    assert "ValueError: no" in caplog.text
    pool.shutdown()


def test_what_was_taken_on_is_done_after_a_shutdown_and_the_threads_end() -> None:
    pool, release = CallThreads(2, "ending"), threading.Event()
    futures: list[Future[object]] = [_submit(pool, release.wait, 20) for _ in range(2)]
    futures += [_submit(pool, lambda: 3) for _ in range(20)]
    pool.shutdown()
    with pytest.raises(RuntimeError):
        _submit(pool, lambda: 1)
    release.set()
    wait(futures, timeout=20)
    assert [future.result(0) for future in futures[2:]] == [3] * 20
    _until(lambda: not [t for t in threading.enumerate() if t.name.startswith("ending-")])
