"""Queries whose questions wait in an outbox: what a policy must know of them to learn from their answers."""

from __future__ import annotations

import threading
from dataclasses import replace

from edge_runtime.fallback import Query

__all__ = ["DeferredQueries"]

# A device waits for days, at times, and forgets the oldest: about as many as a threshold that follows remembers.
_MOST_BYTES = 1 << 20
_OWN_BYTES = 1 << 10


class DeferredQueries:
    """The last queries that were deferred, without their inputs, in a megabyte of memory; from any thread.

    They are gone with the process: whether the cloud's answer is that of the device only the stage that asked can tell.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_id: dict[str, Query] = {}
        self._bytes = 0

    def put(self, request_id: str, query: Query) -> None:
        """Keeps a query until the answer to its question is taken, or newer ones need the room."""
        with self._lock:
            self._by_id[request_id] = replace(query, inputs={})
            self._bytes += _size(query)
            while self._bytes > _MOST_BYTES:
                self._bytes -= _size(self._by_id.pop(next(iter(self._by_id))))

    def take(self, request_id: str) -> Query | None:
        """The query, once."""
        with self._lock:
            query = self._by_id.pop(request_id, None)
            if query is not None:
                self._bytes -= _size(query)
            return query


def _size(query: Query) -> int:
    return _OWN_BYTES + sum(array.nbytes for array in query.outputs.values())
