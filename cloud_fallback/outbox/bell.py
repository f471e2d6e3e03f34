"""A signal from one thread to another that Ctrl-C cannot break."""

from __future__ import annotations

import math
from contextlib import suppress
from queue import Empty, SimpleQueue

__all__ = ["Bell"]


class Bell:
    """Wakes one thread that waits; what is rung while nobody waits is heard later, once or twice.

    In the place of `threading.Event`: a Ctrl-C that comes at the wrong moment of `Event.set` leaves the event's lock
    locked, and then every thread that sets it hangs. A `SimpleQueue` is not interrupted halfway.
    """

    def __init__(self) -> None:
        self._rings: SimpleQueue[None] = SimpleQueue()

    def ring(self) -> None:
        """Wakes who waits, or who will."""
        if self._rings.empty():
            self._rings.put(None)

    def hush(self) -> None:
        """Forgets earlier rings; who waits does so before looking for what may have come."""
        with suppress(Empty):
            while True:
                self._rings.get_nowait()

    def wait(self, seconds: float) -> None:
        """Returns when it is rung, or after so many seconds; `math.inf` for no limit."""
        with suppress(Empty):
            self._rings.get(timeout=None if math.isinf(seconds) else max(seconds, 0.0))
