"""Threads for calls: few while they keep up, more when they do not, and nothing lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait

import pytest

from cloud_fallback.endpoint.call_threads import CallThreads


def _until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.002)


def _names(futures: list[Future[str]]) -> set[str]:
    wait(futures, timeout=20)
    return {future.result(0) for future in futures}


def test_short_work_is_done_by_few_threads() -> None:
    pool = CallThreads(64)
    names = [
        _names([pool.submit(lambda: threading.current_thread().name) for _ in range(32)]) for _ in range(50)
    ]
    # One of them may have been put to sleep by the machine.
    assert sorted(map(len, names))[25] <= 4
    pool.shutdown()


def test_a_thread_that_is_held_does_not_keep_others_waiting() -> None:
    pool, release = CallThreads(16), threading.Event()
    held = [pool.submit(release.wait, 20) for _ in range(12)]
    start = time.perf_counter()
    assert pool.submit(lambda: 7).result(10) == 7
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

    futures = [pool.submit(hold) for _ in range(40)]
    _until(lambda: running[0] == 6)
    time.sleep(0.05)
    assert most[0] == 6
    release.set()
    wait(futures, timeout=20)
    assert most[0] == 6
    assert all(future.done() for future in futures)
    pool.shutdown()


def test_an_error_is_the_futures_own_and_the_thread_goes_on() -> None:
    pool = CallThreads(1)

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        pool.submit(fail).result(10)
    assert pool.submit(lambda: 1).result(10) == 1
    pool.shutdown()


def test_what_was_taken_on_is_done_after_a_shutdown_and_the_threads_end() -> None:
    pool, release = CallThreads(2, "ending"), threading.Event()
    futures: list[Future[object]] = [pool.submit(release.wait, 20) for _ in range(2)]
    futures += [pool.submit(lambda: 3) for _ in range(20)]
    pool.shutdown(wait=False)
    with pytest.raises(RuntimeError):
        pool.submit(lambda: 1)
    release.set()
    wait(futures, timeout=20)
    assert [future.result(0) for future in futures[2:]] == [3] * 20
    _until(lambda: not [t for t in threading.enumerate() if t.name.startswith("ending-")])


def test_what_was_cancelled_is_not_done() -> None:
    pool, release = CallThreads(1), threading.Event()
    done: list[int] = []
    first = pool.submit(release.wait, 20)
    _until(first.running)
    later = [pool.submit(done.append, number) for number in range(5)]
    assert later[2].cancel()
    pool.shutdown(cancel_futures=True)
    release.set()
    assert first.result(10)
    _until(lambda: all(future.done() for future in later))
    assert not done
