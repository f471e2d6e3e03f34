"""The policy that chains use: a threshold of confidence, and what may stand in the way of asking."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Literal

from cloud_fallback.policy.cost import Cost
from cloud_fallback.policy.hourly_budget import HourlyBudget
from cloud_fallback.policy.policy import Action, Decision, Link
from cloud_fallback.threshold.online_threshold import OnlineThreshold
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.fallback import Query
from edge_runtime.prediction import Reason
from edge_runtime.tensor_spec import Array

__all__ = ["OffloadPolicy"]

_SURE = Decision(Action.KEEP, Reason.CONFIDENT)
_NO_THRESHOLD = Decision(Action.KEEP, Reason.NO_THRESHOLD)
_UNSURE = Decision(Action.ASK, Reason.UNSURE)


@dataclass(frozen=True)
class OffloadPolicy:
    """Asks below a threshold of confidence, when there is a way, time, budget and a gain.

    The rule of selective prediction (Chow, "On optimum recognition error and reject tradeoff", IEEE Transactions on
    Information Theory 16, 1970), with a larger model in the place of a rejection. A confidence that is missing or no
    number is not sure of anything, and is asked about.

    What stands in the way is looked at in this order, and the first is the decision's reason: the data are private, the
    device is offline or the cloud's breaker is open, the answer would come too late, it would cost more than it is
    expected to save, the hour's budget is spent.

    Args:
        threshold: In 0..1, in place of the one that the bundle or chain names. With no threshold from anywhere, the
            device's answer is kept.
        budget: Requests and bytes an hour.
        cost: Prices; asks only when that is expected to save more than it costs.
        unanswered: What becomes of an unsure answer that cannot be asked about now: the device's is kept, or it is
            kept and the question deferred to the outbox. Private data are never deferred.
        online: A threshold that follows the cloud's answers, in place of a fixed one.
        refuse_below: The confidence below which such an answer is refused rather than kept, or None to refuse none.

    Raises:
        HybridgeError: `confidence-invalid` for a threshold outside 0..1.
    """

    threshold: float | None = None
    _: KW_ONLY
    budget: HourlyBudget | None = None
    cost: Cost | None = None
    online: OnlineThreshold | None = None
    unanswered: Literal["keep", "defer"] = "keep"
    refuse_below: float | None = None

    def __post_init__(self) -> None:
        for what in ("threshold", "refuse_below"):
            value = getattr(self, what)
            if value is not None and not 0 <= value <= 1:
                raise HybridgeError(
                    ErrorCode.CONFIDENCE_INVALID,
                    f"{what} of the fallback",
                    received=str(value),
                    expected="a number in 0..1",
                )

    def judge(self, query: Query) -> Decision:
        """Compares the query's confidence with the threshold; see `Policy`."""
        if self.online is not None:
            return _UNSURE if self.online.decide(query.confidence)[0] else _SURE
        threshold = query.threshold if self.threshold is None else self.threshold
        if threshold is None:
            return _NO_THRESHOLD
        if query.confidence is None or math.isnan(query.confidence) or query.confidence < threshold:
            return _UNSURE
        return _SURE

    def admit(self, query: Query, link: Link) -> Decision:
        """Looks for what stands in the way; see `Policy`."""
        if (obstacle := self._obstacle(query, link)) is not None:
            return self.give_up(query, obstacle)
        return _UNSURE

    def admit_late(self, request_bytes: int) -> Reason | None:
        """Looks at the budget alone; see `Policy`."""
        return None if self.budget is None else self.budget.spend(request_bytes)

    def give_up(self, query: Query, reason: Reason) -> Decision:
        """Defers where it may, refuses what is too unsure, and keeps the rest; see `Policy`."""
        if self.unanswered == "defer" and not query.private:
            return Decision(Action.DEFER, reason)
        if self.refuses(query):
            return Decision(Action.REFUSE, reason)
        return Decision(Action.KEEP, reason)

    def heard(self, query: Query, outputs: Mapping[str, Array]) -> None:
        """Lets a threshold that follows the cloud learn from its answer, where the stage can compare; see `Policy`."""
        if self.online is not None and query.agrees is not None:
            self.online.learn(query.confidence, query.agrees(outputs))

    def refuses(self, query: Query) -> bool:
        """Whether the device's answer is too unsure to be kept, even until a deferred one comes."""
        if self.refuse_below is None:
            return False
        return not _known(query.confidence) >= self.refuse_below

    def _obstacle(self, query: Query, link: Link) -> Reason | None:
        if query.private:
            return Reason.PRIVATE
        if link.obstacle is not None:
            return link.obstacle
        if link.time_left_s <= (link.expected_s or 0.0):
            return Reason.NO_TIME
        if self.cost is not None and not self.cost.is_worth(_known(query.confidence), link.request_bytes()):
            return Reason.TOO_COSTLY
        return None if self.budget is None else self.budget.spend(link.request_bytes())


def _known(confidence: float | None) -> float:
    return 0.0 if confidence is None or math.isnan(confidence) else confidence
