"""Turns at a model: who may run it now, and who has waited too long."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from cloud_fallback.endpoint.served.served_model import TimeLeft
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["Turns"]

_Turn = TypeVar("_Turn")


class Turns(Generic[_Turn]):
    """A fixed number of turns at a model, each with the thing that runs it.

    Args:
        name: What to call the model in an error.
        runners: What runs it, one for each call that may be under way.
    """

    def __init__(self, name: str, runners: list[_Turn]):
        self._name = name
        # The one used last has its memory in the cache.
        self._free: queue.LifoQueue[_Turn] = queue.LifoQueue()
        for runner in runners:
            self._free.put(runner)

    @contextmanager
    def take(self, time_left: TimeLeft) -> Iterator[_Turn]:
        """Waits for a turn, and gives it up unused when nobody waits for the answer any more."""
        try:
            left = time_left()
            # gRPC's idea of no deadline is more seconds than a lock can wait.
            timeout = None if left is None else min(max(left, 0.0), threading.TIMEOUT_MAX)
            runner = self._free.get(timeout=timeout)
        except queue.Empty:
            raise self._too_late() from None
        try:
            left = time_left()
            if left is not None and left <= 0:
                raise self._too_late()
            yield runner
        finally:
            self._free.put(runner)

    def _too_late(self) -> HybridgeError:
        return HybridgeError(
            ErrorCode.CLOUD_DEADLINE,
            f"model '{self._name}'",
            received="a request whose deadline passed, or whose caller left, before its turn came",
            fix="give it a longer deadline, or the endpoint more instances",
        )
