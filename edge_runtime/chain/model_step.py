"""A step that runs a model: on its own, or as the first of several tiers, with the cloud last.

Each tier is asked only when the one before was unsure, as in a cascade (Viola and Jones, "Rapid Object Detection using
a Boosted Cascade of Simple Features", CVPR 2001; for networks Teerapittayanon et al., "BranchyNet", ICPR 2016).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_runtime.chain.step import (
    Call,
    Inference,
    StepResult,
    Unsure,
    milliseconds_since,
    resolve,
)
from edge_runtime.chain.swap import TierSlot
from edge_runtime.chain.tier import Tier, TierAnswer
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.fallback import Answer, Fallback
from edge_runtime.prediction import Reason, Source, StageTrace
from edge_runtime.tensor_spec import TensorSpec, Value
from edge_runtime.tensor_type import Bindings, TensorType

__all__ = ["ModelStep"]

_log = logging.getLogger(__name__)

# How many questions to the cloud about items of one stage are under way at once.
_ASKED_AT_ONCE = 4


@dataclass(slots=True)
class _Standing:
    """The answer that stands for one item so far."""

    answer: TierAnswer
    tier: int
    reason: Reason = Reason.NO_FALLBACK
    detail: str = ""


class ModelStep:
    """Runs tiers of models, each when the one before was unsure, and asks a fallback last.

    Args:
        tiers: Models on the device, the cheapest first; all with the inputs and outputs of the first, each but the
            last with a threshold.
        fallback: Whom to ask when the last tier that ran is unsure.

    Raises:
        HybridgeError: `chain-invalid` for tiers that cannot stand in for each other, or that have nothing to decide by.
    """

    private: frozenset[str] = frozenset()

    def __init__(self, tiers: Sequence[Tier], fallback: Fallback | None = None):
        _check_tiers(tiers)
        self.slots = [TierSlot(tier) for tier in tiers]
        self.fallback = fallback
        self.takes: Mapping[str, TensorType] = tiers[0].takes
        self.gives: Mapping[str, TensorType] = tiers[0].gives
        self.input_specs: tuple[TensorSpec, ...] = tiers[0].input_specs
        if fallback is not None and tiers[-1].scorer is None:
            raise HybridgeError(
                ErrorCode.CHAIN_INVALID,
                f"model '{tiers[-1].model.name}'",
                received="a fallback, for a model without a confidence score",
                expected="a confidence in the bundle or the stage",
                fix="name the output to score, such as confidence = {output = 'logits'}",
            )
        self._workers: ThreadPoolExecutor | None = None
        # What a tier took lately, in seconds an item: whether there is time for it is judged by that.
        self._expected = [0.0] * len(tiers)

    def infer(self, given: Mapping[str, TensorType]) -> Inference:
        """Holds the type of each input against what the model takes.

        Names of free sizes are the interpreter's: the same name need not be the same size, in an output least of all.
        """
        mismatches = {
            name: problem
            for name, declared in self.takes.items()
            if name in given and (problem := Bindings().mismatch(declared, given[name]))
        }
        return Inference(self.gives, mismatches)

    def run(self, call: Call, inputs: Mapping[str, Value]) -> StepResult:
        """Answers for one input."""
        return self.run_items(call, [inputs])[0]

    def run_items(self, call: Call, items: Sequence[Mapping[str, Any]]) -> list[StepResult]:
        """Answers for several inputs: the first tier for all of them, further ones for those that stay unsure."""
        if not items:
            return []
        start = time.perf_counter()
        answers = self.slots[0].run(items, batch_size=call.batch_size)
        standing = [_Standing(answer, 0) for answer in answers]
        for tier in range(1, len(self.slots)):
            self._ask_tier(call, items, standing, tier)
        device_ms = milliseconds_since(start) / len(items)
        if self.fallback is None:
            return [self._result(call, each, device_ms) for each in standing]
        return self._ask_elsewhere(call, items, standing, device_ms)

    @property
    def instances(self) -> int:
        """Runs that may be under way at once without waiting for each other."""
        return min(slot.tier.model.instances for slot in self.slots)

    @property
    def stateful(self) -> bool:
        """Whether a model carries a state from run to run, so that their order counts."""
        return any(slot.tier.model.stateful for slot in self.slots)

    def reset(self) -> None:
        """Begins a new stream in every model that carries a state."""
        for slot in self.slots:
            if slot.tier.model.stateful:
                slot.tier.model.reset()

    def close(self) -> None:
        """Closes the fallback; the models belong to who made them."""
        if self._workers is not None:
            self._workers.shutdown()
        if self.fallback is not None:
            self.fallback.close()

    def _ask_tier(
        self, call: Call, items: Sequence[Mapping[str, Any]], standing: list[_Standing], tier: int
    ) -> None:
        before = self.slots[tier - 1].tier
        unsure = [
            index
            for index, each in enumerate(standing)
            if each.tier == tier - 1 and not before.is_sure(each.answer)
        ]
        if not unsure:
            return
        if call.is_late(self._expected[tier] * len(unsure)):
            # Forgotten bit by bit: one slow run must not keep a tier from ever being asked again.
            self._expected[tier] *= 0.9
            _leave(standing, unsure, f"no time for tier {tier + 1}")
            return
        asked = [items[index] for index in unsure]
        start = time.perf_counter()
        try:
            answers = self._run_in_time(call, tier, asked)
        except HybridgeError as error:
            # The tier before has answered; that one cannot be loaded, or gives up, is no reason to have no answer.
            _log.warning("tier %d of stage '%s' failed", tier + 1, call.stage, exc_info=True)
            _leave(standing, unsure, f"tier {tier + 1}: {error.message}", Reason.TIER_FAILED)
            return
        taken = (time.perf_counter() - start) / len(unsure)
        if answers is None:
            # It takes longer than it was waited for.
            self._expected[tier] = max(self._expected[tier], taken)
            _leave(standing, unsure, f"tier {tier + 1} was not done in time")
            return
        self._expected[tier] = taken
        for index, answer in zip(unsure, answers, strict=True):
            standing[index] = _Standing(answer, tier, Reason.UNSURE, f"answered by tier {tier + 1}")

    def _run_in_time(
        self, call: Call, tier: int, items: Sequence[Mapping[str, Any]]
    ) -> list[TierAnswer] | None:
        """The answers of a tier, or None when the deadline passed; what runs on then is thrown away."""
        if call.deadline is None:
            return self.slots[tier].run(items, batch_size=call.batch_size)
        if self._workers is None:
            self._workers = ThreadPoolExecutor(len(self.slots), "hybridge-tier")
        future: Future[list[TierAnswer]] = self._workers.submit(
            self.slots[tier].run, items, batch_size=call.batch_size
        )
        try:
            return future.result(max(call.deadline - time.monotonic(), 0.0))
        except FutureTimeoutError:
            future.cancel()
            return None

    def _ask_elsewhere(
        self,
        call: Call,
        items: Sequence[Mapping[str, Any]],
        standing: list[_Standing],
        device_ms: float,
    ) -> list[StepResult]:
        def ask(index: int) -> tuple[Answer, float]:
            start = time.perf_counter()
            each = standing[index]
            tier = self.slots[each.tier].tier
            own = each.answer.outputs
            unsure = Unsure(
                items[index],
                own,
                each.answer.confidence,
                tier.threshold,
                lambda outputs: tier.best(outputs) == tier.best(own),
            )
            assert self.fallback is not None  # noqa: S101 - only called with one
            answer = resolve(self.fallback, call, unsure)
            return _readable(tier, answer), milliseconds_since(start)

        if len(items) == 1:
            asked = [ask(0)]
        else:
            with ThreadPoolExecutor(min(_ASKED_AT_ONCE, len(items)), "hybridge-ask") as pool:
                asked = list(pool.map(ask, range(len(items))))
        return [
            self._result(call, each, device_ms, *answer) for each, answer in zip(standing, asked, strict=True)
        ]

    def _result(
        self,
        call: Call,
        standing: _Standing,
        device_ms: float,
        answer: Answer | None = None,
        fallback_ms: float = 0.0,
    ) -> StepResult:
        tier = self.slots[standing.tier].tier
        outputs, confidence = standing.answer.outputs, standing.answer.confidence
        source, reason, detail, refused = Source.DEVICE, standing.reason, standing.detail, False
        if answer is not None:
            source, reason, refused = answer.source, answer.reason, answer.refused
            detail = answer.detail or standing.detail
            if answer.outputs is not None:
                outputs, confidence = answer.outputs, tier.score(answer.outputs)
        trace = StageTrace(
            call.stage,
            device_ms,
            fallback_ms,
            confidence,
            source,
            reason,
            detail,
            label=None if refused else tier.label(outputs),
            tier=standing.tier,
            refused=refused,
            request_id=answer.request_id if answer is not None else "",
        )
        return StepResult(outputs, trace)


def _readable(tier: Tier, answer: Answer) -> Answer:
    """The answer, if it can be scored as the tier's own are; else that the tier's own is kept."""
    if answer.outputs is None:
        return answer
    try:
        tier.score(answer.outputs)
        tier.label(answer.outputs)
    except (IndexError, TypeError, ValueError) as error:
        shapes = ", ".join(f"'{name}' of shape {np.shape(value)}" for name, value in answer.outputs.items())
        return Answer.keep(Reason.CLOUD_REFUSED, f"received {shapes}, which cannot be scored: {error}")
    return answer


def _leave(
    standing: list[_Standing], indices: list[int], detail: str, reason: Reason = Reason.DEVICE_DEADLINE
) -> None:
    for index in indices:
        standing[index].reason, standing[index].detail = reason, detail


def _check_tiers(tiers: Sequence[Tier]) -> None:
    if not tiers:
        raise HybridgeError(
            ErrorCode.CHAIN_INVALID, "tiers of a stage", received="none", expected="one model or more"
        )
    first = tiers[0]
    for tier in tiers[:-1]:
        if tier.threshold is None:
            raise HybridgeError(
                ErrorCode.CHAIN_INVALID,
                f"tier '{tier.model.name}'",
                received="no threshold of confidence",
                expected="one, below which the next tier is asked",
                fix="add it to the tier's confidence, such as confidence = {output = 'logits', threshold = 0.8}",
            )
    for number, tier in enumerate(tiers[1:], 2):
        title = f"tier {number}, model '{tier.model.name}'"
        for what, own, theirs in (("inputs", tier.takes, first.takes), ("outputs", tier.gives, first.gives)):
            if own.keys() != theirs.keys():
                raise HybridgeError(
                    ErrorCode.CHAIN_INVALID,
                    title,
                    received=f"the {what} {', '.join(own)}",
                    expected=f"those of the first tier, {', '.join(theirs)}",
                    fix=f"say which are the same, such as {what} = {{{next(iter(own))} = '{next(iter(theirs))}'}}",
                )
            for name, kind in own.items():
                if Bindings().mismatch(theirs[name], kind):
                    raise HybridgeError(
                        ErrorCode.CHAIN_INVALID,
                        title,
                        received=f"{what[:-1]} '{name}' {kind}",
                        expected=f"{theirs[name]}, as the first tier has it",
                        fix="choose tiers that can answer for each other, or preprocess in their bundles",
                    )
