"""Streams that are open, each of which holds a thread: a bounded number of them, which clients share."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cloud_fallback.endpoint.access import host_of
from cloud_fallback.endpoint.rpc.call_room import no_room
from cloud_fallback.endpoint.rpc.ended_calls import EndedCalls, Stall

__all__ = ["MAX_STREAM_THREADS", "OpenStreams"]

# Above the most, some are let in to see whether another gives them its place.
_MOST, _LOOKING = 128, 32
MAX_STREAM_THREADS = _MOST + _LOOKING
# How long a stream has its place while others of the same host want one.
_TURN_S = 60.0
# Messages that may be on their way, and how long one may be while another waits: they are nothing but a name.
_COMING, _HURRY_S = 16, 0.25


class OpenStreams:
    """Counts streams; safe from many threads.

    Args:
        ended: Ends streams of the host that has most of them, the oldest first, when there is no room for another's.
    """

    def __init__(self, ended: EndedCalls):
        self._ended = ended
        # Since when, the oldest first.
        self._open: dict[Any, float] = {}
        self._coming: dict[Any, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def enter(self, context: Any) -> Iterator[None]:
        """Counts a stream as open while the block runs.

        Args:
            context: Its `grpc.ServicerContext`.

        Raises:
            HybridgeError: `cloud-overloaded` when there is no room for it.
        """
        with self._lock:
            displaced = self._displaced_by(context) if len(self._open) >= _MOST else None
            self._open[context] = time.monotonic()
        if displaced is not None:
            self._ended.end(displaced, Stall.STREAMS)
        try:
            yield
        finally:
            with self._lock:
                self._open.pop(context, None)

    def received(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """A stream's messages, as they come.

        Raises:
            HybridgeError: `cloud-overloaded` when there is no room for one to come.
        """
        while True:
            self._comes(context)
            try:
                content = next(messages)
            except StopIteration:
                return
            finally:
                with self._lock:
                    self._coming.pop(context, None)
            yield content

    def end(self) -> None:
        """Ends all of them."""
        with self._lock:
            streams = list(self._open)
        for context in streams:
            context.cancel()

    def _comes(self, context: Any) -> None:
        now, slow = time.monotonic(), None
        with self._lock:
            if len(self._coming) >= _COMING:
                slow, since = next(iter(self._coming.items()))
                if now - since < _HURRY_S:
                    raise no_room("a stream while the messages of as many come as may")
                del self._coming[slow]
            self._coming[context] = now
        if slow is not None:
            self._ended.end(slow, Stall.ROOM)

    def _displaced_by(self, context: Any) -> Any:
        hosts = Counter(host_of(each.peer()) for each in self._open)
        ((heaviest, count),) = hosts.most_common(1)
        oldest = next(each for each in self._open if host_of(each.peer()) == heaviest)
        if count <= hosts[host_of(context.peer())] + 1 and time.monotonic() - self._open[oldest] < _TURN_S:
            raise no_room("a stream while as many are open as may")
        del self._open[oldest]
        return oldest
