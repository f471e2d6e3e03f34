"""What a chain answers: outputs, how sure it is, where the answer came from and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from edge_runtime.tensor_spec import Value

__all__ = ["Prediction", "Reason", "Source", "StageTrace"]


class Source(StrEnum):
    """Where an answer came from."""

    DEVICE = "device"
    CLOUD = "cloud"
    CACHE = "cache"
    DEFERRED = "deferred"


class Reason(StrEnum):
    """Why the answer came from there."""

    NO_FALLBACK = "no-fallback"
    NO_THRESHOLD = "no-threshold"
    CONFIDENT = "confident"
    UNSURE = "unsure"
    PRIVATE = "private"
    OFFLINE = "offline"
    NO_TIME = "no-time"
    REQUEST_BUDGET = "request-budget"
    BYTE_BUDGET = "byte-budget"
    TOO_COSTLY = "too-costly"
    CLOUD_BREAKER_OPEN = "cloud-breaker-open"
    CLOUD_OVERLOADED = "cloud-overloaded"
    CLOUD_FAILED = "cloud-failed"
    CLOUD_UNAVAILABLE = "cloud-unavailable"
    CLOUD_DEADLINE = "cloud-deadline"
    CLOUD_REFUSED = "cloud-refused"
    MESSAGE_TOO_LARGE = "message-too-large"
    FALLBACK_FAILED = "fallback-failed"
    DEVICE_DEADLINE = "device-deadline"
    TIER_FAILED = "tier-failed"


# Not frozen, as one is made for each stage of each run: frozen ones take three times as long.
@dataclass(slots=True)
class StageTrace:
    """What one stage did: how long it took, how sure it was, and where its answer came from.

    Attributes:
        stage: The stage's name; a stage of a nested chain is ``outer/inner``, an item of several ``stage[index]``.
        device_ms: Wall-clock milliseconds on the device.
        fallback_ms: Wall-clock milliseconds spent deciding whether to ask elsewhere, and asking.
        confidence: Of the answer that stands, in 0..1, where the stage is scored.
        source: Where the answer that stands came from.
        reason: Why from there.
        detail: The reason in a sentence, where there is more to say.
        label: The label of the most likely class, where the model has labels.
        tier: Which of the stage's models answered, the first being 0.
        refused: Whether the policy refuses to stand for the answer: too unsure, and nobody else could be asked.
        request_id: Of a deferred question; the answer that is delivered later has the same.
        skipped: Whether the stage did not run, because its condition or what it needs was not there.
        parts: Traces of what is within: the stages of a nested chain, or each of a stage's items.
    """

    stage: str
    device_ms: float
    fallback_ms: float = 0.0
    confidence: float | None = None
    source: Source = Source.DEVICE
    reason: Reason = Reason.NO_FALLBACK
    detail: str = ""
    label: str | None = None
    tier: int = 0
    refused: bool = False
    request_id: str = ""
    skipped: bool = False
    parts: tuple[StageTrace, ...] = ()

    @property
    def total_ms(self) -> float:
        """Time on the device and elsewhere together."""
        return self.device_ms + self.fallback_ms


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer of a chain to one input.

    Attributes:
        outputs: The chain's outputs by name: an array, or a list of arrays for what a stage made for each item. What
            a stage that was skipped would have made is not there.
        label: The label of the most likely class, where the model has labels and the answer is not refused.
        confidence: How sure the answer is, in 0..1, where the chain scores it.
        source: Where the answer came from.
        reason: Why from there.
        detail: The reason in a sentence, where there is more to say, such as the error of the cloud.
        refused: Whether the policy refuses to stand for the answer of a stage: too unsure, and nobody else could be
            asked. The outputs are there to look at, not to act on.
        stages: What each stage did and how long it took, in the chain's order.
        elapsed_ms: Wall-clock milliseconds from the call to the answer; less than the stages' times together where
            branches ran at once.
    """

    outputs: Mapping[str, Value]
    label: str | None = None
    confidence: float | None = None
    source: Source = Source.DEVICE
    reason: Reason = Reason.NO_FALLBACK
    detail: str = ""
    refused: bool = False
    stages: tuple[StageTrace, ...] = ()
    elapsed_ms: float = 0.0

    @property
    def total_ms(self) -> float:
        """Time of all stages together, in milliseconds."""
        return sum(stage.total_ms for stage in self.stages)

    @property
    def request_ids(self) -> tuple[str, ...]:
        """Under what the answers to questions that were deferred come later; empty where none was."""
        found: dict[str, None] = {}
        traces = list(self.stages)
        while traces:
            trace = traces.pop(0)
            if trace.request_id:
                found[trace.request_id] = None
            traces += trace.parts
        return tuple(found)
