"""How long stages take, learnt as they run, and how a deadline is divided among them by that."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Pace"]

# A new run counts so much against what was known: slow to believe one outlier, quick to follow a change.
_WEIGHT = 0.2
# Handing a stage to another thread costs about a tenth of a millisecond.
_WORTH_A_THREAD_S = 0.0003


class Pace:
    """Seconds that each stage of a chain lately took.

    Args:
        needs: For each stage, the indices of those that it waits for.
    """

    def __init__(self, needs: Sequence[frozenset[int]]):
        self._seconds = [0.0] * len(needs)
        self._followers = [
            [later for later, wanted in enumerate(needs) if index in wanted] for index in range(len(needs))
        ]

    def saw(self, index: int, seconds: float) -> None:
        """Learns from a run of a stage."""
        known = self._seconds[index]
        self._seconds[index] = known + _WEIGHT * (seconds - known) if known else seconds

    def is_worth_a_thread(self, index: int) -> bool:
        """Whether a stage takes long enough to be handed to another thread."""
        return self._seconds[index] > _WORTH_A_THREAD_S

    def is_any_pair_worth_threads(self, pairs: Sequence[tuple[int, int]]) -> bool:
        """Whether two of these stages that may run at once both take long enough for it."""
        seconds = self._seconds
        return any(
            seconds[one] > _WORTH_A_THREAD_S and seconds[other] > _WORTH_A_THREAD_S for one, other in pairs
        )

    def deadlines(self, deadline: float) -> list[float]:
        """The moment by which each stage should be done, so that those behind it still have their usual time."""
        after = [0.0] * len(self._seconds)
        for index in reversed(range(len(after))):
            after[index] = max(
                (self._seconds[later] + after[later] for later in self._followers[index]), default=0.0
            )
        return [deadline - seconds for seconds in after]
