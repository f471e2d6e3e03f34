"""Answers that were given, and that nobody has taken yet."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

from cloud_fallback.endpoint.rpc.call_room import no_room
from cloud_fallback.endpoint.rpc.ended_calls import EndedCalls, Stall

__all__ = ["UnsentAnswers"]

# Of small answers it is not the bytes that take the memory: a call takes some kilobytes beside its own.
_MAX_CALLS = 16_384
_CALL_BYTES = 4096
_AT_ONCE = 4
# Who takes an answer has patience, and one more second for each so many bytes.
_SLOWEST_BYTES_PER_S = 1000


class UnsentAnswers:
    """Knows what is on its way to clients, and bounds it; safe from many threads.

    Args:
        ended: Ends calls of the connection that has most, the oldest first, when there is too much.
        max_bytes: The most of all of them, but for one that is alone.
    """

    def __init__(self, ended: EndedCalls, *, max_bytes: int):
        self._ended = ended
        self._max_bytes = max_bytes
        # Since when, and how large; the oldest first.
        self._answers: dict[Any, tuple[float, int]] = {}
        # Of those calls that were ended for others, and that gRPC has not let go of yet.
        self._going: dict[Any, int] = {}
        self._bytes = self._going_bytes = 0
        self._lock = threading.Lock()

    def add(self, call: Any, size: int) -> None:
        """Counts an answer that is about to be sent, until `remove`.

        Args:
            call: A `UnaryCall`.
            size: Its bytes; 0 for a call that gets a status and no answer.

        Raises:
            HybridgeError: `cloud-overloaded` when there is no room, though others were ended for it.
        """
        displaced: list[Any] = []
        with self._lock:
            while self._answers and self._is_too_much(size):
                displaced += self._make_room(size)
            is_full = bool(size) and self._is_full_of_what_goes(call, size)
            if not is_full:
                self._answers[call] = time.monotonic(), size
                self._bytes += size
        for each in displaced:
            self._ended.end(each, Stall.ANSWERS)
        if is_full:
            raise no_room(f"answers of more than {self._max_bytes} bytes that nobody takes")

    def remove(self, call: Any) -> None:
        """An answer was taken, or its call has ended."""
        with self._lock:
            answer = self._answers.pop(call, None)
            if answer is not None:
                self._bytes -= answer[1]
            else:
                self._going_bytes -= self._going.pop(call, 0)

    def end_stalled(self, patience_s: float) -> None:
        """Ends calls whose answers were not taken for so long, and for what their size takes."""
        now = time.monotonic()
        with self._lock:
            first = next(iter(self._answers.values()), None)
            if first is None or now - first[0] <= patience_s:
                return
            stalled = [
                call
                for call, (since, size) in self._answers.items()
                if now - since > patience_s + size / _SLOWEST_BYTES_PER_S
            ]
            for call in stalled:
                self._let_go(call)
        for call in stalled:
            self._ended.end(call, Stall.ANSWER)

    def __len__(self) -> int:
        return len(self._answers)

    def _is_too_much(self, size: int) -> bool:
        return self._bytes + size > self._max_bytes or len(self._answers) >= _MAX_CALLS

    def _is_full_of_what_goes(self, call: Any, size: int) -> bool:
        """Whether there is no room beside calls that were ended; a connection that had none of those may take more."""
        if not self._going_bytes or self._going_bytes + size <= self._max_bytes:
            return False
        is_to_blame = any(each.peer() == call.peer() for each in self._going)
        return is_to_blame or self._going_bytes + size > 2 * self._max_bytes

    def _make_room(self, size: int) -> list[Any]:
        """Calls of the connection that has most, the oldest first, which are to be ended."""
        held: Counter[str] = Counter()
        for call, (_, bytes_) in self._answers.items():
            held[call.peer()] += bytes_ + _CALL_BYTES
        ((heaviest, _),) = held.most_common(1)
        displaced: list[Any] = []
        for call in [call for call in self._answers if call.peer() == heaviest]:
            # More than one at a time, as to look for the heaviest takes long.
            if not self._is_too_much(size) and len(displaced) >= _AT_ONCE:
                break
            self._let_go(call)
            displaced.append(call)
        return displaced

    def _let_go(self, call: Any) -> None:
        _, size = self._answers.pop(call)
        self._bytes -= size
        self._going[call] = size
        self._going_bytes += size
