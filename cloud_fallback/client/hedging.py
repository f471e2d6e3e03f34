"""When a question that takes long is asked a second time, so that one slow replica is not waited for.

Dean and Barroso, "The Tail at Scale", Communications of the ACM 56(2), 2013: a second request after the 95th percentile
of the first ones costs about 5% more of them and cuts the tail. gRPC's own `hedgingPolicy` is accepted by its Python
stack and does nothing.
"""

from __future__ import annotations

import threading
from typing import Annotated

from msgspec import Meta, Struct

from cloud_fallback.client.round_trips import RoundTrips

__all__ = ["Hedge", "HedgeCredit"]

# What a quiet time may save up for a bad one.
_MOST_CREDIT = 10.0


class Hedge(Struct, frozen=True, forbid_unknown_fields=True):
    """How second attempts are made; only for models whose answer does not depend on how often they are asked.

    Attributes:
        after_ms: The second attempt follows after so many milliseconds. By default after the 95th percentile of the
            last answers; half of the deadline at the latest, so that each attempt has its part of it.
        share: At most so many second attempts for each question.
    """

    after_ms: Annotated[float, Meta(gt=0)] | None = None
    share: Annotated[float, Meta(gt=0, le=1)] = 0.1

    def delay_s(self, round_trips: RoundTrips, time_left_s: float) -> float | None:
        """Seconds after which to ask again, or None where that would come to nothing before the deadline."""
        half = time_left_s / 2
        if self.after_ms is not None:
            delay = self.after_ms / 1e3
            if delay >= time_left_s:
                return None
        else:
            delay = half if round_trips.slow_s is None else min(round_trips.slow_s, half)
        return None if (round_trips.expected_s or 0.0) > time_left_s - delay else delay


class HedgeCredit:
    """Keeps second attempts to a share of the questions, by a token bucket; safe from many threads."""

    def __init__(self, share: float):
        self._share = share
        self._lock = threading.Lock()
        self._credit = 0.0

    def earn(self) -> None:
        """A question was asked."""
        with self._lock:
            self._credit = min(self._credit + self._share, _MOST_CREDIT)

    def spend(self) -> bool:
        """Takes a second attempt off the credit, if there is any."""
        with self._lock:
            # A sum of tenths is not quite one.
            if self._credit < 1 - 1e-9:
                return False
            self._credit -= 1
            return True
