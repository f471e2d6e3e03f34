"""The rule that says whether the device's answer is kept or the cloud is asked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.fallback import Query
from edge_runtime.prediction import Reason

__all__ = ["Decision", "Policy", "ThresholdPolicy"]


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to ask, and why or why not."""

    ask: bool
    reason: Reason


@runtime_checkable
class Policy(Protocol):
    """Decides for one query at a time, from any thread, in microseconds: it runs for every prediction."""

    def decide(self, query: Query) -> Decision:
        """Keeps the device's answer or asks the cloud."""
        ...


@dataclass(frozen=True)
class ThresholdPolicy:
    """Asks when the device's confidence is below a threshold.

    The rule of selective prediction (Chow, "On optimum recognition error and reject tradeoff", IEEE Transactions on
    Information Theory 16, 1970), with a larger model in the place of a rejection. A confidence that is missing or no
    number is not sure of anything, and asks.

    Args:
        threshold: In 0..1, in place of the one that the bundle or chain names. With no threshold from anywhere, the
            device's answer is kept.

    Raises:
        HybridgeError: `confidence-invalid` for a threshold outside 0..1.
    """

    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise HybridgeError(
                ErrorCode.CONFIDENCE_INVALID,
                "threshold of the fallback",
                received=str(self.threshold),
                expected="a number in 0..1",
            )

    def decide(self, query: Query) -> Decision:
        """Compares the query's confidence with the threshold; see `Policy`."""
        threshold = query.threshold if self.threshold is None else self.threshold
        if threshold is None:
            return Decision(False, Reason.NO_THRESHOLD)
        if query.confidence is None or math.isnan(query.confidence) or query.confidence < threshold:
            return Decision(True, Reason.UNSURE)
        return Decision(False, Reason.CONFIDENT)
