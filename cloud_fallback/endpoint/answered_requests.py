"""Answers that were given already, for requests that come twice."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloud_fallback.endpoint.served.served_model import TimeLeft
from edge_runtime.errors import ErrorCode, HybridgeError

if TYPE_CHECKING:
    from cloud_fallback.endpoint.data_plane import Inference

__all__ = ["AnsweredRequests"]


@dataclass(slots=True, eq=False)
class _Answer:
    """An answer, or one that is on its way."""

    done: threading.Event = field(default_factory=threading.Event)
    answer: Inference | None = None
    size: int = 0
    since: float = field(default_factory=time.monotonic)


class AnsweredRequests:
    """Runs a request of a key once: who asks again while it runs waits for it, and later gets the answer that was kept.

    A failure is not kept, so that the next attempt runs. The idea is that of the Idempotency-Key header (IETF draft
    draft-ietf-httpapi-idempotency-key-header).

    Args:
        max_bytes: Size of all answers kept; the oldest go first.
        max_age_s: Seconds for which one is kept.
    """

    def __init__(self, *, max_bytes: int = 64 * 2**20, max_age_s: float = 900.0):
        self._max_bytes, self._max_age_s = max_bytes, max_age_s
        self._answers: OrderedDict[Hashable, _Answer] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def once(self, key: Hashable, run: Callable[[], Inference], time_left: TimeLeft) -> Inference:
        """The answer for a key, by `run` when there is none.

        Raises:
            HybridgeError: `cloud-deadline` when the first request of the key is not done in time; what `run` raises.
        """
        while True:
            with self._lock:
                self._forget()
                found = self._answers.get(key)
                if found is None:
                    mine = self._answers[key] = _Answer()
                    break
            left = time_left()
            # gRPC's idea of no deadline is more seconds than a lock can wait.
            if not found.done.wait(None if left is None else min(left, threading.TIMEOUT_MAX)):
                raise HybridgeError(
                    ErrorCode.CLOUD_DEADLINE,
                    "request that came twice",
                    received="no answer to the first of them in time",
                    fix="ask again with the same key",
                )
            if found.answer is not None:
                return found.answer
        try:
            mine.answer = run()
        except BaseException:
            with self._lock:
                del self._answers[key]
            raise
        finally:
            mine.done.set()
        with self._lock:
            mine.since = time.monotonic()
            mine.size = sum(array.nbytes for array in mine.answer.outputs.values())
            self._bytes += mine.size
            self._answers.move_to_end(key)
        return mine.answer

    def _forget(self) -> None:
        now = time.monotonic()
        for key, each in list(self._answers.items()):
            if not each.done.is_set():
                continue
            if self._bytes <= self._max_bytes and now - each.since <= self._max_age_s:
                # The rest are younger.
                break
            del self._answers[key]
            self._bytes -= each.size
