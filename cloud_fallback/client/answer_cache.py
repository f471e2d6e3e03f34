"""Answers of the cloud to questions that were asked before."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["AnswerCache"]

# An entry's own objects, roughly.
_ENTRY_BYTES = 500
_STRING_BYTES = 50


@dataclass(frozen=True, slots=True)
class _Entry:
    outputs: Mapping[str, Array]
    size: int
    came_at: float


class AnswerCache:
    """The least recently used answers go first; safe from many threads, for one fallback.

    Args:
        megabytes: Million bytes of the answers that are kept, about.
        age_s: Seconds after which an answer is no longer given; those in which the machine slept count.
        max_answers: How many are kept.

    Raises:
        HybridgeError: `usage` for limits that are not positive.

    Example:
        >>> CloudFallback("cloud.example:8001", model="digits-large", cache=AnswerCache(age_s=600))
    """

    def __init__(self, *, megabytes: float = 8.0, age_s: float = 3600.0, max_answers: int = 10_000):
        if not (0 < megabytes < math.inf and age_s > 0 and max_answers >= 1):
            raise HybridgeError(
                ErrorCode.USAGE,
                "cache of answers",
                received=f"{megabytes} megabytes, {age_s} s, {max_answers} answers",
                expected="all more than 0",
            )
        self._max_bytes = megabytes * 1e6
        self._age_s = age_s
        self._max_answers = max_answers
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._bytes = 0

    def get(self, key: bytes) -> Mapping[str, Array] | None:
        """The outputs of the endpoint for a digest of inputs; they are not to be written to."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if _now() - entry.came_at > self._age_s:
                self._forget(key)
                return None
            self._entries.move_to_end(key)
            return entry.outputs

    def put(self, key: bytes, outputs: Mapping[str, Array]) -> None:
        """Keeps an answer, of arrays that nobody writes to."""
        size = _ENTRY_BYTES + sum(map(_size, outputs.values()))
        if size > self._max_bytes:
            return
        with self._lock:
            if key in self._entries:
                self._forget(key)
            self._entries[key] = _Entry(outputs, size, _now())
            self._bytes += size
            while self._bytes > self._max_bytes or len(self._entries) > self._max_answers:
                self._forget(next(iter(self._entries)))

    def clear(self) -> None:
        """Forgets all answers."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def _forget(self, key: bytes) -> None:
        self._bytes -= self._entries.pop(key).size


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _size(array: Array) -> int:
    if array.dtype != np.dtype(object):
        return array.nbytes
    return sum(_STRING_BYTES + len(element) for element in array.ravel().tolist())
