"""Calls that the endpoint ends because they hold something and do not go on: why, and how many there were."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from cloud_fallback.endpoint.access import host_of
from cloud_fallback.endpoint.refusal_log import RefusalLog

__all__ = ["EndedCalls", "Stall"]

_log = logging.getLogger(__name__)


class Stall(StrEnum):
    """Why a call was ended."""

    MESSAGE = "its message did not come"
    ROOM = "its message was slow to come, and there was room for no more of those"
    STREAMS = "too many streams were open, most of them of its host"
    ANSWER = "its answer was not taken"
    ANSWERS = "too many answers were not taken, most of them on its connection"


class EndedCalls:
    """Ends calls, logs that, and counts them."""

    def __init__(self) -> None:
        self._counts: Counter[Stall] = Counter()
        self._lock = threading.Lock()
        self._refusals = RefusalLog(_log)

    def end(self, call: Any, why: Stall) -> None:
        """Ends a call.

        Args:
            call: A `grpc.ServicerContext`, or what has its `peer` and `cancel`.
            why: Why.
        """
        with self._lock:
            self._counts[why] += 1
        self._refusals.refused(host_of(call.peer()), f"a call was ended: {why}")
        call.cancel()

    def counts(self) -> Mapping[Stall, int]:
        """How many were ended, by why."""
        with self._lock:
            return dict(self._counts)
