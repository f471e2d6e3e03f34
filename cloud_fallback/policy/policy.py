"""The rule that says keep, ask, defer or refuse, and what it is asked about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from edge_runtime.fallback import Query
from edge_runtime.prediction import Reason
from edge_runtime.tensor_spec import Array

__all__ = ["Action", "Decision", "Link", "Policy"]


class Action(StrEnum):
    """What to do about one answer of the device.

    `KEEP` it; `ASK` the cloud now; `DEFER`: keep it for now, and ask when there is a way; `REFUSE` to stand for it.
    """

    KEEP = "keep"
    ASK = "ask"
    DEFER = "defer"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and why."""

    action: Action
    reason: Reason


# Made for each question; a frozen one would take three times as long to make.
@dataclass(slots=True)
class Link:
    """What a client knows of the way to the cloud.

    Attributes:
        obstacle: Why nothing can be sent now, such as `Reason.OFFLINE` or `Reason.CLOUD_BREAKER_OPEN`, or None.
        expected_s: Seconds that an answer is expected to take, or None when nothing is known yet.
        time_left_s: Seconds that it may take.
        request_bytes: Gives the size of the request; called only when it matters, since a request has to be made
            to be measured.
    """

    obstacle: Reason | None
    expected_s: float | None
    time_left_s: float
    request_bytes: Callable[[], int]


@runtime_checkable
class Policy(Protocol):
    """Decides for one query at a time, from any thread, in microseconds: it runs for every prediction."""

    def judge(self, query: Query) -> Decision:
        """Whether the device's answer will do: `KEEP`, or `ASK` for one that should be asked about if it can be."""
        ...

    def admit(self, query: Query, link: Link) -> Decision:
        """Whether an unsure answer may be asked about now, when no answer is at hand; `ASK` counts against budgets."""
        ...

    def admit_late(self, request_bytes: int) -> Reason | None:
        """Why a question from an outbox may not be asked now; one that may, for None, counts against budgets."""
        ...

    def give_up(self, query: Query, reason: Reason) -> Decision:
        """What to do about an unsure answer when asking was impossible or in vain; never `ASK`."""
        ...

    def refuses(self, query: Query) -> bool:
        """Whether the device's answer is too unsure to be kept, even until a deferred one comes."""
        ...

    def heard(self, query: Query, outputs: Mapping[str, Array]) -> None:
        """Learns what the cloud answered, if it wants to."""
        ...
