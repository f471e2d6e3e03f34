"""What an outbox holds and has done, for metrics to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_runtime.metrics import Measure

__all__ = ["OutboxFigures"]


_COUNTS = {
    "puts": "Requests that were stored.",
    "refused": "Requests that did not fit.",
    "sent": "Attempts to send that came to an end.",
    "retries": "Attempts that failed in passing.",
    "answered": "Requests that were answered.",
    "failed": "Requests that were refused for good.",
    "acknowledged": "Answers and refusals that were taken.",
}
_GAUGES = {
    "depth": "Requests that wait or are being sent.",
    "in_flight": "Requests that are being sent.",
    "unacknowledged": "Answers and refusals that nobody has taken yet.",
    "bytes": "Size of what it holds.",
    "disk_bytes": "What its file takes.",
}


@dataclass(frozen=True, slots=True)
class OutboxFigures:
    """An outbox at one moment; counts are since it was opened.

    Attributes:
        depth: Requests that wait or are being sent.
        depth_by_destination: The same, for each destination.
        in_flight: Of those, the ones being sent.
        unacknowledged: Answers and refusals that no callback has taken yet.
        bytes: Of all bodies, answers and metadata.
        disk_bytes: What the file and its WAL take.
        oldest_age_s: Seconds that the oldest request is known to have waited; zero when none waits.
        puts: Requests that were stored.
        repeats: Puts of an id that was there already.
        refused: Requests that did not fit and were refused.
        sent: Attempts to send that came to an end.
        retries: Of those, the ones that failed in passing.
        answered: Requests that were answered.
        failed: Requests that were refused for good.
        dropped: Requests that were given up, by why.
        deliveries: Answers and refusals given to a callback.
        acknowledged: Answers and refusals that it took.
    """

    depth: int
    depth_by_destination: Mapping[str, int]
    in_flight: int
    unacknowledged: int
    bytes: int
    disk_bytes: int
    oldest_age_s: float
    puts: int
    repeats: int
    refused: int
    sent: int
    retries: int
    answered: int
    failed: int
    dropped: Mapping[str, int]
    deliveries: int
    acknowledged: int

    @property
    def left(self) -> int:
        """Requests that are not done with: they wait, or no callback has taken what became of them."""
        return self.depth + self.unacknowledged

    def measures(self) -> Iterator[Measure]:
        """The same for who shows it."""
        # An outbox by itself does without what this loads.
        from edge_runtime.metrics import Measure

        for name, text in _COUNTS.items():
            yield Measure(f"outbox_{name}", text, getattr(self, name))
        for why, count in self.dropped.items():
            yield Measure("outbox_dropped", "Requests that were given up, by why.", count, {"reason": why})
        for name, text in _GAUGES.items():
            yield Measure(f"outbox_{name}", text, getattr(self, name), is_count=False)
        yield Measure(
            "outbox_oldest_age_seconds", "How long the oldest has waited.", self.oldest_age_s, is_count=False
        )
