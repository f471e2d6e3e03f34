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
# How long a message may be on its way where it holds nobody up: 64 KB on a network of 4.8 kbit/s.
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
        patience_s: Seconds that a message may take where it holds nobody up, and an answer.
    """

    def __init__(
        self,
        lanes: tuple[Lane, ...],
        *,
        max_unsent_bytes: int,
        patience_s: float = _PATIENCE_S,
    ):
        self._lanes = lanes
        self._max_unsent_bytes = max_unsent_bytes
        self._patience_s = patience_s
        # Calls whose answer is not taken yet: since when, whose, and its size.
        self._unsent: dict[Any, tuple[float, str, int]] = {}
        self._unsent_bytes = 0
        self._lock = threading.Lock()
        self._making_room = threading.Lock()
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

    def answers(self, call: Any, peer: str, size: int) -> None:
        """Watches a call whose answer is about to be sent, until that is taken.

        Args:
            call: Its `grpc.ServicerContext`.
            peer: Whose it is.
            size: Bytes of the answer.
        """
        with self._lock:
            self._unsent[call] = time.monotonic(), peer, size
            self._unsent_bytes += size
            is_too_much = self._is_too_much()
        if not call.add_callback(lambda: self._forget(call)):
            self._forget(call)
        # One thread makes room for all.
        elif is_too_much and self._making_room.acquire(blocking=False):
            try:
                self._make_room()
            finally:
                self._making_room.release()

    def _forget(self, call: Any) -> None:
        with self._lock:
            _, _, size = self._unsent.pop(call, (0.0, "", 0))
            self._unsent_bytes -= size

    def _is_too_much(self) -> bool:
        return self._unsent_bytes > self._max_unsent_bytes or len(self._unsent) > _MAX_UNSENT

    def _make_room(self) -> None:
        """Ends calls of the connection that holds most, but never the last: one answer may be as large as it may."""
        while True:
            with self._lock:
                if len(self._unsent) < 2 or not self._is_too_much():
                    return
                held: Counter[str] = Counter()
                for _, peer, size in self._unsent.values():
                    # A call takes some kilobytes beside its answer.
                    held[peer] += size + 4096
                ((heaviest, _),) = held.most_common(1)
                oldest = next(call for call, (_, peer, _) in self._unsent.items() if peer == heaviest)
            self._end(oldest, heaviest, Stall.MEMORY)
            self._forget(oldest)

    def _watch(self) -> None:
        while not self._stopping.wait(_LOOK_S):
            now = time.monotonic()
            for lane in self._lanes:
                self._end_receiving(lane, now)
            with self._lock:
                unsent = list(self._unsent.items())
            for call, (since, peer, size) in unsent:
                if now - since > self._patience_s + size / _SLOWEST_BYTES_PER_S:
                    self._end(call, peer, Stall.ANSWER)
                    self._forget(call)

    def _end_receiving(self, lane: Lane, now: float) -> None:
        held_up = lane.held_up()
        for call, since in list(lane.receiving.items()):
            if now - since > self._patience_s:
                self._end(call, call.peer(), Stall.MESSAGE)
            elif held_up > 0 and now - since > lane.hurry_s:
                self._end(call, call.peer(), Stall.TURN)
            else:
                return
            held_up -= 1
            # It is not ended twice while it takes its leave.
            lane.receiving.pop(call, None)

    def _end(self, call: Any, peer: str, why: Stall) -> None:
        self._ended[why] += 1
        self._refusals.refused(host_of(peer), f"a call was ended: {why}")
        call.cancel()
