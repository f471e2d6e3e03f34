"""Room for calls: threads, turns to receive, and memory for what was received."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any

from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["HeldMessages", "Lane", "no_room"]

_COME_AGAIN_S = (0.25, 0.75)


class Lane:
    """Calls that share threads.

    A call whose message is on its way holds a thread, and its turn to receive: of those there are fewer, so that calls
    whose messages are slow leave threads to others.

    Args:
        workers: The threads.
        max_waiting: Calls that may wait for one of them.
        receivers: Messages that may be on their way at once: what has come of each is in memory.
        hurry_s: Seconds that a message may be on its way while others have waited as long for their turn.
    """

    def __init__(self, workers: int, max_waiting: int, receivers: int, *, hurry_s: float):
        self.hurry_s = hurry_s
        self._workers, self._limit = workers, workers + max_waiting
        self._under_way = self._queued = 0
        self._queued_since = 0.0
        self._lock = threading.Lock()
        # A semaphore, in C.
        self._turns: SimpleQueue[None] = SimpleQueue()
        for _ in range(receivers):
            self._turns.put(None)
        # Calls whose message is on its way, and since when; the longest first.
        self.receiving: dict[Any, float] = {}

    def enter(self) -> bool:
        """Takes a place for a call, if there is one."""
        with self._lock:
            if self._under_way >= self._limit:
                return False
            self._under_way += 1
            return True

    def leave(self) -> None:
        """Gives a call's place back."""
        with self._lock:
            self._under_way -= 1

    def next(self, messages: Iterator[Any], call: Any) -> Any:
        """The next message of a call.

        Args:
            messages: Gives it when it has come, and stops when there are no more.
            call: Its `grpc.ServicerContext`.
        """
        try:
            self._turns.get_nowait()
        except Empty:
            self._wait_for_turn()
        self.receiving[call] = time.monotonic()
        try:
            return next(messages)
        finally:
            self.receiving.pop(call, None)
            self._turns.put(None)

    def held_up(self) -> int:
        """Calls that wait for their turn to receive, if there have been some for long enough; 0 otherwise."""
        with self._lock:
            if not self._queued or time.monotonic() - self._queued_since < self.hurry_s:
                return 0
            return self._queued + max(0, self._under_way - self._workers)

    def _wait_for_turn(self) -> None:
        with self._lock:
            if not self._queued:
                self._queued_since = time.monotonic()
            self._queued += 1
        try:
            self._turns.get()
        finally:
            with self._lock:
                self._queued -= 1


class HeldMessages:
    """Bytes of messages that calls have received and are not done with; safe from many threads.

    Args:
        max_bytes: The most of all of them, but for one that is alone.
    """

    def __init__(self, max_bytes: int):
        self._max_bytes = max_bytes
        self._bytes = 0
        self._lock = threading.Lock()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Counts a message for as long as the block runs.

        Raises:
            HybridgeError: `cloud-overloaded` when there is no room.
        """
        with self._lock:
            if self._bytes and self._bytes + size > self._max_bytes:
                raise no_room(f"messages of more than {self._max_bytes} bytes at once")
            self._bytes += size
        try:
            yield
        finally:
            with self._lock:
                self._bytes -= size


def no_room(received: str) -> HybridgeError:
    """The error for a call that there is no room for now; each is to come again at another moment."""
    return HybridgeError(
        ErrorCode.CLOUD_OVERLOADED,
        "endpoint",
        received=received,
        fix="ask again later",
        retry_after_s=random.uniform(*_COME_AGAIN_S),  # noqa: S311 - no secret
    )
