"""Ends calls that hold a thread or memory and do not go on: no message comes, or nobody takes the answer."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from cloud_fallback.endpoint.access import host_of
from cloud_fallback.endpoint.call_lane import Lane
from cloud_fallback.endpoint.refusal_log import RefusalLog

__all__ = ["Stall", "StalledCalls"]

_log = logging.getLogger(__name__)

_LOOK_S = 0.1
# How long a message may be on its way while others have waited as long for their turn.
_HURRY_S = 0.5
# And how long otherwise: 64 KB on a network of 4.8 kbit/s.
_PATIENCE_S = 110.0
# An answer that is not taken holds no thread, so it has that long and one more second for each so many bytes.
_SLOWEST_BYTES_PER_S = 1000
# Answers that are not taken yet; of small ones it is not the bytes that take the memory.
_MAX_UNSENT = 16_384


class Stall(StrEnum):
    """Why a call was ended."""

    MESSAGE = "its message did not come"
    TURN = "its message was slow to come while others waited"
    ANSWER = "its answer was not taken"
    MEMORY = "too many answers were not taken, most of them on its connection"


class StalledCalls:
    """Watches calls from a thread of its own, between `start` and `stop`.

    What it ends a client sees as CANCELLED: gRPC's Python sends no other status from outside of a call.

    Args:
        lanes: Where calls wait for their messages.
        max_unsent_bytes: Size of all answers that were given and not yet taken; above it calls of the connection that
            has most of them are ended, the oldest first.
        hurry_s: Seconds that a message may take while others have waited as long for their turn.
        patience_s: Seconds that it may take otherwise, and an answer.
    """

    def __init__(
        self,
        lanes: tuple[Lane, ...],
        *,
        max_unsent_bytes: int,
        hurry_s: float = _HURRY_S,
        patience_s: float = _PATIENCE_S,
    ):
        self._lanes = lanes
        self._max_unsent_bytes = max_unsent_bytes
        self._hurry_s, self._patience_s = hurry_s, patience_s
        # Calls whose answer is not taken yet: since when, and its size.
        self._unsent: dict[Any, tuple[float, int]] = {}
        self._unsent_bytes = 0
        self._lock = threading.Lock()
        self._ended: Counter[Stall] = Counter()
        self._refusals = RefusalLog(_log)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="endpoint-stalls", daemon=True)

    def start(self) -> None:
        """Begins to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def ended(self) -> Mapping[Stall, int]:
        """Calls that were ended, by why."""
        return dict(self._ended)

    def answers(self, call: Any, size: int) -> None:
        """Watches a call whose answer is about to be sent, until that is taken.

        Args:
            call: Its `grpc.ServicerContext`.
            size: Bytes of the answer.
        """
        with self._lock:
            self._unsent[call] = time.monotonic(), size
            self._unsent_bytes += size
            is_too_much = self._unsent_bytes > self._max_unsent_bytes or len(self._unsent) > _MAX_UNSENT
        if not call.add_callback(lambda: self._forget(call)):
            self._forget(call)
        elif is_too_much:
            self._make_room()

    def _forget(self, call: Any) -> None:
        with self._lock:
            _, size = self._unsent.pop(call, (0.0, 0))
            self._unsent_bytes -= size

    def _make_room(self) -> None:
        """Ends calls of the connection that holds most, but never the last: one answer may be as large as it may."""
        while True:
            with self._lock:
                unsent = list(self._unsent.items())
                if len(unsent) < 2 or (
                    self._unsent_bytes <= self._max_unsent_bytes and len(unsent) <= _MAX_UNSENT
                ):
                    return
            held: Counter[str] = Counter()
            for call, (_, size) in unsent:
                # A call costs some kilobytes beside its answer.
                held[call.peer()] += size + 4096
            (peer, _), *_ = held.most_common(1)
            oldest = next(call for call, _ in unsent if call.peer() == peer)
            self._end(oldest, Stall.MEMORY)
            self._forget(oldest)

    def _watch(self) -> None:
        while not self._stopping.wait(_LOOK_S):
            now = time.monotonic()
            for lane in self._lanes:
                self._end_receiving(lane, now)
            with self._lock:
                unsent = list(self._unsent.items())
            for call, (since, size) in unsent:
                if now - since > self._patience_s + size / _SLOWEST_BYTES_PER_S:
                    self._end(call, Stall.ANSWER)

    def _end_receiving(self, lane: Lane, now: float) -> None:
        held_up = lane.held_up(self._hurry_s)
        for call, since in list(lane.receiving.items()):
            if now - since > self._patience_s:
                self._end(call, Stall.MESSAGE)
            elif held_up > 0 and now - since > self._hurry_s:
                self._end(call, Stall.TURN)
            else:
                return
            held_up -= 1
            # It is not ended twice while it takes its leave.
            lane.receiving.pop(call, None)

    def _end(self, call: Any, why: Stall) -> None:
        self._ended[why] += 1
        self._refusals.refused(host_of(call.peer()), f"a call was ended: {why}")
        call.cancel()
