"""What an endpoint counts and logs."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloud_fallback.endpoint.data_plane import InferenceRequest

__all__ = ["Telemetry"]


class Telemetry:
    """Counts requests by model, version and outcome."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str, str]] = Counter()

    def inferred(self, request: InferenceRequest, version: str, code: str, seconds: float) -> None:
        """Counts one request.

        Args:
            request: What was asked.
            version: The version that answered, or was asked for.
            code: The error that was given, or empty.
            seconds: How long it took.
        """
        with self._lock:
            self._requests[request.model, version, code] += 1
