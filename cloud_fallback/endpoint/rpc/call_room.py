"""Room for calls: how many may be under way, and how many bytes they may hold."""

from __future__ import annotations

import random
import threading
from typing import Any

from cloud_fallback.endpoint.rpc.coming_messages import ComingMessages
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["CallRoom", "no_room"]

_COME_AGAIN_S = (0.25, 0.75)


class CallRoom:
    """Counts calls that are under way, and the bytes of their messages; safe from many threads.

    Args:
        max_calls: The most calls, their messages coming or there.
        coming: Those of them whose message is on its way.
        max_bytes: The most bytes of messages that are there, but for one that is alone.
    """

    def __init__(self, max_calls: int, coming: ComingMessages, *, max_bytes: int):
        self._max_calls, self._coming, self._max_bytes = max_calls, coming, max_bytes
        self._calls = self._bytes = 0
        self._lock = threading.Lock()

    def enter(self, call: Any) -> None:
        """Takes a place for a call; `leave` gives it back.

        Args:
            call: A `UnaryCall`.

        Raises:
            HybridgeError: `cloud-overloaded` when there is none.
        """
        if self._calls >= self._max_calls and not (
            # Else it is not messages on their way that take the places.
            len(self._coming) > self._max_calls // 2 and self._coming.end_one_for(call)
        ):
            raise no_room("a call while as many wait as may")
        with self._lock:
            self._calls += 1

    def hold(self, size: int) -> None:
        """Takes room for the message of a call that has a place.

        Raises:
            HybridgeError: `cloud-overloaded` when there is none.
        """
        with self._lock:
            if self._bytes and self._bytes + size > self._max_bytes:
                raise no_room(f"messages of more than {self._max_bytes} bytes at once")
            self._bytes += size

    def leave(self, size: int) -> None:
        """Gives a call's place back, and the room of its message; 0 for one that has none."""
        with self._lock:
            self._calls -= 1
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
