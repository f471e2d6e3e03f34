from __future__ import annotations

import threading
import time
from collections.abc import Generator

import pytest

from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.frame import Frame
from edge_runtime.sources import Source


class _Counter(Source):
    """Counts, and remembers what happened to it."""

    def __init__(self, *, fail_at: int | None = None, wait_s: float = 0.0):
        super().__init__()
        self.fail_at = fail_at
        self.wait_s = wait_s
        self.ended = 0
        self.released = 0
        self.making = False

    def _frames(self) -> Generator[Frame | HybridgeError]:
        try:
            number = 0
            while True:
                if number == self.fail_at:
                    raise HybridgeError(ErrorCode.INPUT_INVALID, "counter")
                self.making = True
                self._closed.wait(self.wait_s)
                self.making = False
                yield Frame({}, name=str(number))
                number += 1
        finally:
            self.ended += 1

    def _release(self) -> None:
        assert not self.making, "released under a read"
        self.released += 1


def test_the_device_is_released_after_the_context_and_what_the_frames_held_too() -> None:
    with _Counter() as source:
        frames = iter(source)
        assert [next(frames), next(frames)] == [Frame({}, name="0"), Frame({}, name="1")]
        assert source.released == 0
    assert (source.ended, source.released) == (1, 1)
    assert list(frames) == []


def test_a_source_that_raises_has_released_its_device() -> None:
    source = _Counter(fail_at=2)
    names: list[str] = []
    with pytest.raises(HybridgeError, match="counter"):
        names.extend(frame.name for frame in source if isinstance(frame, Frame))
    assert source.ended == 1
    assert source.released >= 1


def test_leaving_the_loop_without_a_context_releases_too() -> None:
    source = _Counter()
    for _ in source:
        break
    # The interpreter drops the iteration, and the iteration closes.
    assert source.released >= 1


def test_closing_from_another_thread_ends_a_waiting_pass_without_a_frame_and_never_under_a_read() -> None:
    source = _Counter(wait_s=60)
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.extend(source))
    thread.start()
    while not source.making:
        time.sleep(0.001)
    start = time.monotonic()
    source.close()
    thread.join(5)
    assert not thread.is_alive()
    assert time.monotonic() - start < 1
    assert got == []
    assert source.released >= 1


def test_closing_before_the_first_frame_gives_none() -> None:
    source = _Counter()
    source.close()
    assert list(source) == []
    assert source.released >= 1


def test_a_second_pass_is_refused() -> None:
    with _Counter(fail_at=1) as source:
        assert next(iter(source)) == Frame({}, name="0")
        with pytest.raises(HybridgeError, match="open it again"):
            iter(source)


def test_many_threads_may_close() -> None:
    for _ in range(50):
        source = _Counter(wait_s=0.0001)
        started = threading.Event()

        taker = threading.Thread(target=_take, args=(source, started))
        taker.start()
        started.wait(5)
        closers = [threading.Thread(target=source.close) for _ in range(4)]
        for closer in closers:
            closer.start()
        for thread in (*closers, taker):
            thread.join(5)
            assert not thread.is_alive()
        assert source.ended == 1
        assert source.released >= 1


def _take(source: Source, started: threading.Event) -> None:
    for _ in source:
        started.set()
