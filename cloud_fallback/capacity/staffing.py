"""How many replicas keep a promise about late answers.

A replica is a process with workers of its own and a line of its own, and what stands before the replicas sends each
request to one of them without looking at their lines: a random split, which is what balancing by request over a
headless service comes to. Clients that each keep to one replica do worse than that; a balancer that knows the lines
does better. The best there could be is one line for all (`Staffing.one_line`), whose spare capacity grows with the
square root of the load, where that of separate lines grows with the load itself (Halfin and Whitt, "Heavy-traffic
limits for queues with many exponential servers", Operations Research 29, 1981).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from cloud_fallback.capacity.gamma_time import GammaTime
from cloud_fallback.capacity.queue import Queue
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["Goal", "Load", "Replica", "Staffing", "staff"]

# More replicas than so many times what the load keeps busy would answer as if nothing ever waited.
_IDLE = 1000


@dataclass(frozen=True, slots=True)
class Replica:
    """What one replica does: how long a request takes one of its workers, and how many it has."""

    service: GammaTime
    workers: int = 1

    def __post_init__(self) -> None:
        _check("workers of a replica", self.workers, self.workers >= 1, "1 or more")


@dataclass(frozen=True, slots=True)
class Goal:
    """What is promised.

    Args:
        deadline_s: Seconds from question to answer, as the device counts them.
        network_s: Of these, what the way there and back takes; a slow one rather than a mean.
        late: Share of questions that may be answered later.
        max_utilisation: Share of the time that workers may be busy, whatever the queue says: room for what the model
            does not know.
        spare: Replicas that may be away, for a failure or an update, while the promise holds.

    Raises:
        HybridgeError: `usage` for numbers that are not of this kind.
    """

    deadline_s: float
    network_s: float = 0.0
    late: float = 0.01
    max_utilisation: float = 0.8
    spare: int = 1

    def __post_init__(self) -> None:
        _check("deadline", self.deadline_s, 0 < self.deadline_s < math.inf, "more than 0 s")
        _check(
            "time on the network",
            self.network_s,
            0 <= self.network_s < self.deadline_s,
            f"0 s or more, and less than the deadline of {self.deadline_s:g} s",
        )
        _check("share of late answers", self.late, 0 < self.late < 1, "more than 0 and less than 1")
        _check(
            "utilisation", self.max_utilisation, 0 < self.max_utilisation < 1, "more than 0 and less than 1"
        )
        _check("spare replicas", self.spare, self.spare >= 0, "0 or more")

    @property
    def budget_s(self) -> float:
        """Seconds that the endpoint has."""
        return self.deadline_s - self.network_s


@dataclass(frozen=True, slots=True)
class Load:
    """How replicas fare that share a load.

    Attributes:
        replicas: How many of them.
        utilisation: Share of the time that a worker is busy.
        late: Share of questions that are answered after the deadline.
        wait_p50_ms: What half of the questions wait at most for a worker, in milliseconds.
        wait_p99_ms: What 99% do.
        waiting: Questions in the line of one replica, on average.
    """

    replicas: int
    utilisation: float
    late: float
    wait_p50_ms: float
    wait_p99_ms: float
    waiting: float


@dataclass(frozen=True, slots=True)
class Staffing:
    """The replicas for a load, and how they fare.

    Attributes:
        arrivals_per_s: The load: questions in a second.
        replicas: How many to run: those needed and the spare ones; 0 for no load.
        all_up: With all of them.
        spare_away: With those needed alone, which keep the promise.
        one_line: How many, spare ones included, would do if any free worker could take any request.
    """

    arrivals_per_s: float
    replicas: int
    all_up: Load
    spare_away: Load
    one_line: int


def staff(arrivals_per_s: float, replica: Replica, goal: Goal) -> Staffing:
    """The fewest replicas that keep the goal.

    Args:
        arrivals_per_s: Questions in a second, 0 or more.
        replica: What one replica does.
        goal: What is promised.

    Raises:
        HybridgeError: `budget-missed` when no number of replicas keeps it: a single request takes too long; `usage`
            for arrivals that are none.

    Example:
        >>> staff(100.0, Replica(GammaTime(0.012)), Goal(0.1, network_s=0.02)).replicas
        5
    """
    _check("arrivals in a second", arrivals_per_s, 0 <= arrivals_per_s < math.inf, "0 or more")
    if not arrivals_per_s:
        nothing = Load(0, 0.0, 0.0, 0.0, 0.0, 0.0)
        return Staffing(0.0, 0, nothing, nothing, 0)

    def own_lines(replicas: int) -> Queue:
        return Queue(arrivals_per_s / replicas, replica.service, replica.workers)

    def one_line(replicas: int) -> Queue:
        return Queue(arrivals_per_s, replica.service, replica.workers * replicas)

    busy = arrivals_per_s * replica.service.mean_s / replica.workers
    needed = _fewest(own_lines, busy, goal)
    replicas = needed + goal.spare
    return Staffing(
        arrivals_per_s,
        replicas,
        _load(own_lines(replicas), replicas, goal),
        _load(own_lines(needed), needed, goal),
        _fewest(one_line, busy, goal) + goal.spare,
    )


def _fewest(queue: Callable[[int], Queue], busy: float, goal: Goal) -> int:
    """The fewest replicas that are not too late and not too busy; `busy` is how many the load keeps busy."""
    # A load of exactly the limit is within it, whatever a division leaves in the last digit.
    least = max(1, math.ceil(busy / goal.max_utilisation * (1 - 1e-12)))

    def late(replicas: int) -> float:
        return queue(replicas).late(goal.budget_s)

    enough = least
    while (share := late(enough)) > goal.late:
        if enough > _IDLE * least:
            raise HybridgeError(
                ErrorCode.BUDGET_MISSED,
                f"answers within {goal.deadline_s * 1e3:g} ms",
                received=f"{share * 100:.4g}% late of requests that wait for nothing",
                expected=f"at most {goal.late * 100:.4g}%",
                fix="no number of replicas helps: take a faster model, a longer deadline or a larger share late",
            )
        enough *= 2
    return bisect_left(
        range(enough + 1), True, lo=max(least, enough // 2), key=lambda count: late(count) <= goal.late
    )


def _load(queue: Queue, replicas: int, goal: Goal) -> Load:
    return Load(
        replicas,
        queue.utilisation,
        queue.late(goal.budget_s),
        queue.wait_quantile_s(0.5) * 1e3,
        queue.wait_quantile_s(0.99) * 1e3,
        queue.mean_waiting,
    )


def _check(what: str, value: float, right: bool, expected: str) -> None:
    if not right:
        raise HybridgeError(ErrorCode.USAGE, what, received=f"{value:g}", expected=expected)
